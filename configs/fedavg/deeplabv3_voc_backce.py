# FedAvg with BackCE, Pascal VOC, DeepLabV3 with ResNet-50, in the paper's settings.
_base_ = [
    '../_base_/models/deeplabv3_r50-d8.py', '../_base_/datasets/voc_480x480.py',
    '../_base_/federated/voc.py', '../_base_/schedules/fedseg_paper.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(size=(480, 480)),
    decode_head=dict(num_classes=20),
    auxiliary_head=dict(num_classes=20))
