# FedAvg with BackCE, CamVid non-IID1, BiSeNetV2, in the paper's settings, but for the ImageNet weights of its backbone:
# MMSegmentation offers none.
_base_ = [
    '../_base_/models/bisenetv2.py', '../_base_/datasets/camvid_512x512.py',
    '../_base_/federated/camvid_noniid1.py', '../_base_/schedules/fedseg_paper.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=11),
    auxiliary_head=[{**head, 'num_classes': 11} for head in _base_.model.auxiliary_head])
