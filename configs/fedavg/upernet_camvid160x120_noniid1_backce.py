# FedAvg with BackCE, CamVid non-IID1 at 160x120, a small model: the protocol that fits one CPU core.
_base_ = [
    '../_base_/models/upernet_r18_narrow.py', '../_base_/datasets/camvid_160x120.py',
    '../_base_/federated/camvid_noniid1.py', '../_base_/schedules/cpu_70_rounds.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=(96, 128)), decode_head=dict(num_classes=11))
# evaluated are every tenth round, for curves, and the last five
train_cfg = dict(max_rounds=70, val_interval=10, dynamic_intervals=[(67, 1)])
