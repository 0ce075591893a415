# BiSeNetV2 as in MMSegmentation, with BackCE in all five heads.
norm_cfg = dict(type='BN', requires_grad=True)  # clients train apart: there is nothing to synchronise
loss = dict(type='BackCELoss')
num_classes = 19
head = dict(
    type='FCNHead', num_classes=num_classes, norm_cfg=norm_cfg, concat_input=False, align_corners=False,
    loss_decode=loss)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        test_cfg=dict(size_divisor=32)),
    backbone=dict(
        type='BiSeNetV2',
        detail_channels=(64, 64, 128),
        semantic_channels=(16, 32, 64, 128),
        semantic_expansion_ratio=6,
        bga_channels=128,
        out_indices=(0, 1, 2, 3, 4),
        norm_cfg=norm_cfg,
        align_corners=False),
    decode_head=dict(**head, in_channels=128, in_index=0, channels=1024, num_convs=1, dropout_ratio=0.1),
    auxiliary_head=[
        dict(**head, in_channels=in_channels, in_index=in_index, channels=channels, num_convs=2)
        for in_index, in_channels, channels in ((1, 16, 16), (2, 32, 64), (3, 64, 256), (4, 128, 1024))
    ],
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
