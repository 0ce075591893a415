from .camvid import CamVidDataset
from .class_partitioner import ClassPartitioner
from .client_stream import ClientBatchSampler, ClientDataset, ClientStream, SampleKey
from .label_scan import scan_labels
from .mask_unannotated import UNANNOTATED, VOID, MaskUnannotated
from .partition import ClientShard, Partition

__all__ = [
    'UNANNOTATED', 'VOID', 'CamVidDataset', 'ClassPartitioner', 'ClientBatchSampler', 'ClientDataset', 'ClientShard',
    'ClientStream', 'MaskUnannotated', 'Partition', 'SampleKey', 'scan_labels'
]
