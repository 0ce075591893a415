# MOON with BackCE, CamVid non-IID1, BiSeNetV2.
_base_ = '../fedavg/bisenetv2_camvid_noniid1_backce.py'
federated = dict(algorithm=dict(type='MOON'))
