# The bound of the demo: all scenes with all labels in one place. To the tool that is a federation of one client; 24
# rounds of 300 images are the images that 60 rounds of five clients train on.
_base_ = '../fedavg/upernet_streetscenes_noniid1_ce.py'
federated = dict(partitioner=dict(num_clients=1, classes_per_client=10), clients_per_round=1, local_epochs=1)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-3, begin=0, end=24, by_epoch=True)]
train_cfg = dict(max_rounds=24, val_interval=4)
