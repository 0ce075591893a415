# FedAvg with plain cross-entropy over the annotated pixels; all else as in the file below.
_base_ = './lite0_camvid240x180_noniid1_backce.py'
model = dict(decode_head=dict(loss_decode=dict(_delete_=True, type='CrossEntropyLoss', avg_non_ignore=True)))
