# FedAvg with plain cross-entropy over the annotated pixels; all else as in the file below.
_base_ = './deeplabv3_ade20k_backce.py'
loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    decode_head=dict(loss_decode=dict(_delete_=True, **loss)),
    auxiliary_head=dict(loss_decode=dict(_delete_=True, **loss, loss_weight=0.4)))
