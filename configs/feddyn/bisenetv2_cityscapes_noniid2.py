# FedDyn with BackCE, Cityscapes non-IID2, BiSeNetV2.
_base_ = '../fedavg/bisenetv2_cityscapes_noniid2_backce.py'
federated = dict(algorithm=dict(type='FedDyn'))
