# FedSeg, Cityscapes non-IID2, DeepLabV3 with ResNet-50.
_base_ = '../fedavg/deeplabv3_cityscapes_noniid2_backce.py'
federated = dict(algorithm=dict(type='FedSeg'))
