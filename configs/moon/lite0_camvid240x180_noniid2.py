# MOON with BackCE, CamVid at 240x180 non-IID2, EfficientNet-Lite0 from ImageNet weights.
_base_ = '../fedavg/lite0_camvid240x180_noniid2_backce.py'
federated = dict(algorithm=dict(type='MOON'))
