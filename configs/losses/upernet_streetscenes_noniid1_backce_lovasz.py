# The demo with Lovasz-softmax beside BackCE.
_base_ = '../fedavg/upernet_streetscenes_noniid1_backce.py'
model = dict(decode_head=dict(loss_decode=[
    dict(type='BackCELoss'),
    dict(type='LovaszLoss', per_image=False, reduction='none')]))
