# FedAvg with 20 clients that are alike and annotate all classes, for any data set; also to federate a plain
# MMSegmentation config: tools/fed_train.py PLAIN_CONFIG --federated THIS_FILE. Its losses stay as they are.
federated = dict(
    partitioner=dict(type='IIDPartitioner', num_clients=20, seed=0),
    clients_per_round=5,
    local_epochs=1,
    algorithm=dict(type='FedAvg'))
train_cfg = dict(type='FederatedTrainLoop', max_rounds=200, val_interval=10)
