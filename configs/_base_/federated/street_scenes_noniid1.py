# The built-in data set in the manner of FedSeg's non-IID1: 20 clients, each with one annotated class.
federated = dict(
    partitioner=dict(type='ClassPartitioner', num_clients=20, classes_per_client=1, seed=0),
    clients_per_round=5,
    local_epochs=2,
    algorithm=dict(type='FedAvg'))
train_cfg = dict(type='FederatedTrainLoop', max_rounds=60, val_interval=5)
