# FedAvg with BackCE, Cityscapes non-IID1, DeepLabV3 with ResNet-50, in the paper's settings.
_base_ = [
    '../_base_/models/deeplabv3_r50-d8.py', '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/federated/cityscapes_noniid1.py', '../_base_/schedules/fedseg_paper.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=(512, 1024)))
