# For the CPU-sized protocol. The rate is high because few clients annotate a class; clipping makes that safe.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='FlatNoDecayConstructor',
    optimizer=dict(type='SGD', lr=0.3, momentum=0.9, weight_decay=5e-4),
    clip_grad=dict(max_norm=2.0),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-3, begin=0, end=70, by_epoch=True)]
