# The demo's other half: plain cross-entropy over the annotated pixels; all else as in the file below.
_base_ = './upernet_streetscenes_noniid1_backce.py'
model = dict(decode_head=dict(loss_decode=dict(_delete_=True, type='CrossEntropyLoss', avg_non_ignore=True)))
