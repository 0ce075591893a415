# A federation of sites with drawn street scenes in folders of their own: what `fedseg_mm silo demo` trains. The sites'
# site.yaml name the images; the data set here says what the classes are and how images are loaded.
_base_ = [
    '../_base_/models/upernet_r18_narrow.py', '../_base_/datasets/own_folder_small.py',
    '../_base_/schedules/cpu_constant_rate.py', '../_base_/default_runtime.py'
]
metainfo = dict(classes=('sky', 'building', 'road', 'sidewalk', 'tree', 'car', 'bus', 'person', 'pole', 'sign'))
train_dataloader = dict(dataset=dict(metainfo=metainfo))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
model = dict(data_preprocessor=dict(size=(96, 128)), decode_head=dict(num_classes=10))
federated = dict(
    partitioner=dict(type='IIDPartitioner', num_clients=3),  # in one place; across sites, every site is a client
    clients_per_round=3,
    local_epochs=2,
    algorithm=dict(type='FedAvg'))
train_cfg = dict(type='FederatedTrainLoop', max_rounds=20, val_interval=2)
