# FedAvg with plain cross-entropy over the annotated pixels; all else as in the file below.
_base_ = './bisenetv2_ade20k_backce.py'
loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    decode_head=dict(loss_decode=dict(_delete_=True, **loss)),
    auxiliary_head=[{**head, 'loss_decode': loss} for head in _base_.model.auxiliary_head])
