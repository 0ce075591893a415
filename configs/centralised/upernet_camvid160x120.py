# The bound of the CPU-sized protocol: all images with all labels in one place. To the tool that is a federation of one
# client; 35 rounds of 468 images take about the time of 70 rounds of five clients.
_base_ = '../fedavg/upernet_camvid160x120_noniid1_ce.py'
federated = dict(partitioner=dict(num_clients=1, classes_per_client=11), clients_per_round=1, local_epochs=1)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-3, begin=0, end=35, by_epoch=True)]
train_cfg = dict(max_rounds=35, val_interval=20)
