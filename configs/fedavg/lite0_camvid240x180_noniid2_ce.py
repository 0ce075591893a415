# Two annotated classes per client; all else as in the file below.
_base_ = './lite0_camvid240x180_noniid1_ce.py'
federated = dict(partitioner=dict(classes_per_client=2))
