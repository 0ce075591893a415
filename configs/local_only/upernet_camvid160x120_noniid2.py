# The bound of no federation: every client of non-IID2 trains a model of its own; evaluated is the mean over them.
_base_ = '../fedavg/upernet_camvid160x120_noniid2_backce.py'
federated = dict(algorithm=dict(type='LocalOnly'))
train_cfg = dict(val_interval=70, dynamic_intervals=None)
