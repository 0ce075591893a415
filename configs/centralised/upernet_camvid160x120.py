# The bound of the CPU-sized protocol: the images of all clients in one place, with all labels. 30 rounds of 468 images
# are the steps of 70 rounds of five clients.
_base_ = '../fedavg/upernet_camvid160x120_noniid1_backce.py'
federated = dict(local_epochs=1, algorithm=dict(type='Centralised'))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-3, begin=0, end=30, by_epoch=True)]
train_cfg = dict(max_rounds=30, dynamic_intervals=[(27, 1)])
