# FedSeg, CamVid at 160x120 non-IID1, a small model for one CPU core. With this model and schedule and the weight 1,
# the contrast's gradient is many times as long as BackCE's; with this one it is about as long (docs/reproduction.md).
_base_ = '../fedavg/upernet_camvid160x120_noniid1_backce.py'
federated = dict(algorithm=dict(type='FedSeg', loss_weight=0.03))
