# MOON with BackCE, CamVid non-IID2, DeepLabV3 with ResNet-50.
_base_ = '../fedavg/deeplabv3_camvid_noniid2_backce.py'
federated = dict(algorithm=dict(type='MOON'))
