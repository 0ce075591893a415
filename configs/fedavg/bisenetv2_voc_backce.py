# FedAvg with BackCE, Pascal VOC, BiSeNetV2, in the paper's settings, but for the ImageNet weights of its backbone:
# MMSegmentation offers none.
_base_ = [
    '../_base_/models/bisenetv2.py', '../_base_/datasets/voc_480x480.py',
    '../_base_/federated/voc.py', '../_base_/schedules/fedseg_paper.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(size=(480, 480)),
    decode_head=dict(num_classes=20),
    auxiliary_head=[{**head, 'num_classes': 20} for head in _base_.model.auxiliary_head])
