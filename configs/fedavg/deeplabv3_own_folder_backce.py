# FedAvg with BackCE on images of your own; to be inherited, with data_root and classes (see docs/data.md).
_base_ = [
    '../_base_/models/deeplabv3_r50-d8.py', '../_base_/datasets/own_folder_512x512.py',
    '../_base_/federated/own_folder.py', '../_base_/schedules/fedseg_paper.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=(512, 512)))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-4, begin=0, end=200, by_epoch=True)]
