# Pascal VOC 2012 in the settings of FedSeg: 1464 training images (train), 1449 for evaluation (val), the 20 foreground
# classes. Background is no class: its pixels become void, which is neither trained nor evaluated. The folder is
# data/VOCdevkit/VOC2012, or what the environment variable FEDSEG_VOC names, as MMSegmentation lays it out:
# JPEGImages, SegmentationClass, ImageSets/Segmentation/{train,val}.txt.
dataset_type = 'PascalVOCDataset'
data_root = '{{$FEDSEG_VOC:data/VOCdevkit/VOC2012}}'
crop_size = (480, 480)
metainfo = dict(classes=(
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable', 'dog',
    'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(500, 500), ratio_range=(0.5, 1.5), keep_ratio=True),  # 1: own size
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')
]
folders = dict(img_path='JPEGImages', seg_map_path='SegmentationClass')
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    drop_last=True,
    dataset=dict(
        type=dataset_type, data_root=data_root, metainfo=metainfo, data_prefix=folders,
        ann_file='ImageSets/Segmentation/train.txt', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type, data_root=data_root, metainfo=metainfo, data_prefix=folders,
        ann_file='ImageSets/Segmentation/val.txt', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
