# MOON with BackCE, Cityscapes non-IID1, DeepLabV3 with ResNet-50.
_base_ = '../fedavg/deeplabv3_cityscapes_noniid1_backce.py'
federated = dict(algorithm=dict(type='MOON'))
