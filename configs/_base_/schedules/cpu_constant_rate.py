# SGD for a small model on a CPU. The rate is high because few clients annotate a class; clipping makes that safe.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='FlatNoDecayConstructor',
    optimizer=dict(type='SGD', lr=0.3, momentum=0.9, weight_decay=5e-4),
    clip_grad=dict(max_norm=2.0))
param_scheduler = []
custom_hooks = [dict(type='ChannelsLastHook')]  # a tenth of the time of a small model's rounds, on a CPU
