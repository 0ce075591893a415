# The bound of masked labels: all images in one place, each annotated as its client of non-IID1 did.
_base_ = './lite0_camvid240x180.py'
federated = dict(partitioner=dict(classes_per_client=1), algorithm=dict(labels='masked'))
