# The bound of all labels: the images of all clients in one place, with the rows' own schedule. 18 rounds of 468 images
# are the steps of 40 rounds of five clients.
_base_ = '../fedavg/lite0_camvid240x180_noniid1_backce.py'
federated = dict(local_epochs=1, algorithm=dict(type='Centralised'))
param_scheduler = [dict(type='MultiStepLR', milestones=[15], gamma=0.1, by_epoch=True)]
train_cfg = dict(max_rounds=18, dynamic_intervals=[(15, 1)])
