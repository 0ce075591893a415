# The demo with binary cross-entropy of every class beside BackCE.
_base_ = '../fedavg/upernet_streetscenes_noniid1_backce.py'
model = dict(decode_head=dict(loss_decode=[
    dict(type='BackCELoss'),
    dict(type='CrossEntropyLoss', use_sigmoid=True, loss_name='loss_bce')]))
