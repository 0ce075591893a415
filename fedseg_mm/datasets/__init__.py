from .camvid import CamVidDataset
from .client_stream import ClientBatchSampler, ClientDataset, ClientStream, Pass, SampleKey
from .image_names import image_names
from .label_scan import scan_labels
from .labels import UNANNOTATED, VOID
from .partition import ClientShard, Partition, PooledShard
from .partition_dataset import partition_dataset
from .partition_summary import PartitionSummary
from .partitioners import (
                           ClassPartitioner,
                           DirichletPartitioner,
                           GroupPartitioner,
                           IIDPartitioner,
                           ManifestPartitioner,
                           Partitioner,
)
from .street_scenes import StreetScenesDataset
from .transforms import LoadCachedImage, LoadStreetScene, MaskToClient, RemapUnannotated

__all__ = [
    'UNANNOTATED', 'VOID', 'CamVidDataset', 'ClassPartitioner', 'ClientBatchSampler', 'ClientDataset', 'ClientShard',
    'ClientStream', 'DirichletPartitioner', 'GroupPartitioner', 'IIDPartitioner', 'LoadCachedImage', 'LoadStreetScene',
    'ManifestPartitioner', 'RemapUnannotated', 'MaskToClient', 'Partition', 'Pass', 'PartitionSummary', 'Partitioner',
    'PooledShard', 'SampleKey', 'StreetScenesDataset', 'image_names', 'partition_dataset', 'scan_labels'
]
