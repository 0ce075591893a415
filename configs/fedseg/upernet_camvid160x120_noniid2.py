# FedSeg, CamVid at 160x120 non-IID2, a small model for one CPU core. With this model and schedule, the contrast's gradient
# is twenty times as long as BackCE's where both count alike; with this weight it is as long (docs/reproduction.md).
_base_ = '../fedavg/upernet_camvid160x120_noniid2_backce.py'
federated = dict(algorithm=dict(type='FedSeg', loss_weight=0.03))
