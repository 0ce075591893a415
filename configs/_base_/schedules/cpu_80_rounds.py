# For the CPU-sized protocol. The rate is high because a class is annotated by few clients; clipping makes it safe.
max_rounds = 80
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='FlatNoDecayConstructor',
    optimizer=dict(type='SGD', lr=0.5, momentum=0.9, weight_decay=5e-4),
    clip_grad=dict(max_norm=2.0),
    paramwise_cfg=dict(custom_keys={}))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-3, begin=0, end=max_rounds, by_epoch=True)]
