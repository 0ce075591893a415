# FedAvg with BackCE on images of your own, a small model for a CPU; to be inherited, with data_root and classes (see
# docs/data.md).
_base_ = [
    '../_base_/models/upernet_r18_narrow.py', '../_base_/datasets/own_folder_small.py',
    '../_base_/federated/own_folder.py', '../_base_/schedules/cpu_70_rounds.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=(96, 128)))
train_cfg = dict(max_rounds=70, val_interval=10)
