# The demo: FedAvg with BackCE on the built-in data set, one annotated class per client; a minute on two CPU cores.
_base_ = [
    '../_base_/models/upernet_r18_narrow.py', '../_base_/datasets/street_scenes_160x120.py',
    '../_base_/federated/street_scenes_noniid1.py', '../_base_/schedules/cpu_constant_rate.py',
    '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=(96, 128)), decode_head=dict(num_classes=10))
