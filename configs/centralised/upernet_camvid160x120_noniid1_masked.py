# The bound of masked labels: all images in one place, each annotated as its client of non-IID1 did.
_base_ = '../fedavg/upernet_camvid160x120_noniid1_backce.py'
federated = dict(local_epochs=1, algorithm=dict(type='Centralised', labels='masked'))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-3, begin=0, end=30, by_epoch=True)]
train_cfg = dict(max_rounds=30, dynamic_intervals=[(27, 1)])
