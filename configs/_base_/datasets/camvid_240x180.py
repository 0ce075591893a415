# CamVid at half its size, for a CPU: the pipelines of camvid_160x120.py with other sizes.
_base_ = './camvid_160x120.py'
size = (240, 180)  # width, height
train_pipeline = [
    {**step, **{key: value for key, value in dict(scale=size, crop_size=(144, 192)).items() if key in step}}
    for step in _base_.train_pipeline]
test_pipeline = [{**step, 'scale': size} if 'scale' in step else step for step in _base_.test_pipeline]
train_dataloader = dict(dataset=dict(
    datasets=[{**part, 'pipeline': train_pipeline} for part in _base_.train_dataloader.dataset.datasets]))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
