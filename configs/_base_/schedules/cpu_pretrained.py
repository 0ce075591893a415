# For the CPU-sized protocol from ImageNet weights.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='FlatNoDecayConstructor',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(custom_keys={'decode_head': dict(lr_mult=10.), 'projection_head': dict(lr_mult=10.)}),
    clip_grad=dict(max_norm=5.0))
param_scheduler = [dict(type='MultiStepLR', milestones=[34], gamma=0.1, by_epoch=True)]
custom_hooks = [dict(type='ChannelsLastHook')]
