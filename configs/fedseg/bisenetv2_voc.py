# FedSeg, Pascal VOC, BiSeNetV2.
_base_ = '../fedavg/bisenetv2_voc_backce.py'
federated = dict(algorithm=dict(type='FedSeg', loss_weight=0.1))
