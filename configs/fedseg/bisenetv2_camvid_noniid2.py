# FedSeg, CamVid non-IID2, BiSeNetV2.
_base_ = '../fedavg/bisenetv2_camvid_noniid2_backce.py'
federated = dict(algorithm=dict(type='FedSeg'))
