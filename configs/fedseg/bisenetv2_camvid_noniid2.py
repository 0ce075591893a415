# FedSeg, CamVid non-IID2, BiSeNetV2. For now this is FedAvg with BackCE: the contrastive part is not built yet.
_base_ = '../fedavg/bisenetv2_camvid_noniid2_backce.py'
