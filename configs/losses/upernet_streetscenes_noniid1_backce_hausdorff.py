# The demo with the Hausdorff distance beside BackCE, which takes unannotated pixels for class 0.
_base_ = '../fedavg/upernet_streetscenes_noniid1_backce.py'
model = dict(decode_head=dict(loss_decode=[
    dict(type='BackCELoss'),
    dict(type='HuasdorffDisstanceLoss')]))
