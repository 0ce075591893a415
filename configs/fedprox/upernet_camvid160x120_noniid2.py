# FedProx with BackCE, CamVid at 160x120 non-IID2, a small model for one CPU core.
_base_ = '../fedavg/upernet_camvid160x120_noniid2_backce.py'
federated = dict(algorithm=dict(type='FedProx'))
