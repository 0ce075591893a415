# FedDyn with BackCE, ADE20K, DeepLabV3 with ResNet-50.
_base_ = '../fedavg/deeplabv3_ade20k_backce.py'
federated = dict(algorithm=dict(type='FedDyn'))
