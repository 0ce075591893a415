# FedSeg with one annotated class per client, for any data set; also to federate a plain MMSegmentation config:
# tools/fed_train.py PLAIN_CONFIG --federated THIS_FILE. Eight clients per class are those of the paper's Cityscapes.
federated = dict(
    partitioner=dict(type='ClassPartitioner', clients_per_class=8, classes_per_client=1, seed=0),
    clients_per_round=5,
    local_epochs=2,
    algorithm=dict(type='FedSeg'))
train_cfg = dict(type='FederatedTrainLoop', max_rounds=1500, val_interval=20)
head_loss = dict(type='BackCELoss')  # what --federated puts in the place of cross-entropy
