# FedAvg with BackCE, ADE20K, DeepLabV3 with ResNet-50, in the paper's settings.
_base_ = [
    '../_base_/models/deeplabv3_r50-d8.py', '../_base_/datasets/ade20k_480x480.py',
    '../_base_/federated/ade20k.py', '../_base_/schedules/fedseg_paper.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(size=(480, 480)),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150))
