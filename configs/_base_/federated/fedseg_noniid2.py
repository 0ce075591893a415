# FedSeg with two annotated classes per client; all else as in the file below.
_base_ = './fedseg_noniid1.py'
federated = dict(partitioner=dict(classes_per_client=2))
