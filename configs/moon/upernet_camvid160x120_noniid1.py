# MOON with BackCE, CamVid at 160x120 non-IID1, a small model for one CPU core. With mu=1 MOON's gradient is longer than
# BackCE's, and across it (docs/reproduction.md).
_base_ = '../fedavg/upernet_camvid160x120_noniid1_backce.py'
federated = dict(algorithm=dict(type='MOON', mu=0.1))
