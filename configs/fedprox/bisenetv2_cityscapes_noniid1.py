# FedProx with BackCE, Cityscapes non-IID1, BiSeNetV2.
_base_ = '../fedavg/bisenetv2_cityscapes_noniid1_backce.py'
federated = dict(algorithm=dict(type='FedProx'))
