# A federation to start from with images of your own: 10 clients, each with one annotated class. Real clients are named
# by a manifest: partitioner='manifest.yaml'.
federated = dict(
    partitioner=dict(type='ClassPartitioner', num_clients=10, classes_per_client=1, seed=0),
    clients_per_round=5,
    local_epochs=2,
    algorithm=dict(type='FedAvg'))
train_cfg = dict(type='FederatedTrainLoop', max_rounds=200, val_interval=10)
