# FedDyn with BackCE, Pascal VOC, DeepLabV3 with ResNet-50.
_base_ = '../fedavg/deeplabv3_voc_backce.py'
federated = dict(algorithm=dict(type='FedDyn'))
