# UPerNet with a ResNet-18 of a quarter of its width: 0.85 million parameters, for a CPU.
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(
        type='ResNetV1c', depth=18, stem_channels=16, base_channels=16, num_stages=4, out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), norm_cfg=norm_cfg, norm_eval=False, style='pytorch',
        contract_dilation=True),
    decode_head=dict(
        type='UPerHead', in_channels=[16, 32, 64, 128], in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3), channels=32,
        dropout_ratio=0, num_classes=19, norm_cfg=norm_cfg, align_corners=False,
        loss_decode=dict(type='BackCELoss')),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
