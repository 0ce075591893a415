# FedDyn with BackCE, Pascal VOC, BiSeNetV2.
_base_ = '../fedavg/bisenetv2_voc_backce.py'
federated = dict(algorithm=dict(type='FedDyn'))
