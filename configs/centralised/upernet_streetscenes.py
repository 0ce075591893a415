# The bound of the demo: the scenes of all clients in one place, with all labels. 24 rounds of 300 images are the steps
# of 60 rounds of five clients.
_base_ = '../fedavg/upernet_streetscenes_noniid1_backce.py'
federated = dict(local_epochs=1, algorithm=dict(type='Centralised'))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-3, begin=0, end=24, by_epoch=True)]
train_cfg = dict(max_rounds=24, val_interval=4)
