# FedAvg with BackCE, CamVid non-IID1, DeepLabV3 with ResNet-50, in the paper's settings.
_base_ = [
    '../_base_/models/deeplabv3_r50-d8.py', '../_base_/datasets/camvid_512x512.py',
    '../_base_/federated/camvid_noniid1.py', '../_base_/schedules/fedseg_paper.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11))
