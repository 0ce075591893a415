# The built-in data set: street scenes of ten classes, drawn in memory. There is nothing to download.
train_pipeline = [
    dict(type='LoadStreetScene'),
    dict(type='RandomCrop', crop_size=(96, 128)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
# stock loading, which MMSegInferencer looks for; a file backend draws the scenes for it
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    drop_last=True,
    dataset=dict(type='StreetScenesDataset', split='train', num_images=300, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='StreetScenesDataset', split='val', num_images=60, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
