# DeepLabV3 with ResNet-50-D8, MMSegmentation's own, with BackCE. Its ImageNet weights are downloaded at the start; off
# line, train from scratch with --cfg-options model.pretrained=None.
_base_ = 'mmseg::_base_/models/deeplabv3_r50-d8.py'
norm_cfg = dict(type='BN', requires_grad=True)  # clients train apart: there is nothing to synchronise
loss = dict(type='BackCELoss')
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    decode_head=dict(norm_cfg=norm_cfg, loss_decode=dict(_delete_=True, **loss)),
    auxiliary_head=dict(norm_cfg=norm_cfg, loss_decode=dict(_delete_=True, **loss, loss_weight=0.4)))
