# The demo with Dice beside BackCE, weighed as in MMSegmentation's own configs.
_base_ = '../fedavg/upernet_streetscenes_noniid1_backce.py'
model = dict(decode_head=dict(loss_decode=[
    dict(type='BackCELoss'),
    dict(type='DiceLoss', loss_weight=3.0)]))
