# FedSeg, Cityscapes non-IID2, DeepLabV3 with ResNet-50. For now this is FedAvg with BackCE: the contrastive part is not
# built yet.
_base_ = '../fedavg/deeplabv3_cityscapes_noniid2_backce.py'
