# FedSeg, CamVid at 160x120 non-IID1, a small model for one CPU core.
_base_ = '../fedavg/upernet_camvid160x120_noniid1_backce.py'
federated = dict(algorithm=dict(type='FedSeg'))
