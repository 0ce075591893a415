# FedDyn with BackCE, ADE20K, BiSeNetV2.
_base_ = '../fedavg/bisenetv2_ade20k_backce.py'
federated = dict(algorithm=dict(type='FedDyn'))
