# FedAvg with BackCE, Cityscapes non-IID1, BiSeNetV2, in the paper's settings, but for the ImageNet weights of its
# backbone: MMSegmentation offers none.
_base_ = [
    '../_base_/models/bisenetv2.py', '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/federated/cityscapes_noniid1.py', '../_base_/schedules/fedseg_paper.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=(512, 1024)))
