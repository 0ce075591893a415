# FedSeg, CamVid non-IID1, BiSeNetV2. For now this is FedAvg with BackCE: the contrastive part is not built yet.
_base_ = '../fedavg/bisenetv2_camvid_noniid1_backce.py'
