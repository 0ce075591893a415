# FedSeg's optimizer: SGD, heads learn ten times faster, no weight decay on norms and biases, a tenth of the rate from
# round 1000. The authors' later runs had momentum 0.99, from an option that leaked; 0.9 is what they meant.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='FlatNoDecayConstructor',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(
        custom_keys={
            'decode_head': dict(lr_mult=10.),
            'auxiliary_head': dict(lr_mult=10.),
            'projection_head': dict(lr_mult=10.)
        }))
param_scheduler = [dict(type='MultiStepLR', milestones=[1000], gamma=0.1, by_epoch=True)]
