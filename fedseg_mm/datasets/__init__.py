from .camvid import CamVidDataset
from .client_stream import ClientBatchSampler, ClientDataset, ClientStream, Pass, SampleKey
from .image_names import image_names
from .label_scan import scan_labels
from .load_cached_image import LoadCachedImage
from .load_street_scene import LoadStreetScene
from .mark_unannotated import MarkUnannotated
from .mask_unannotated import UNANNOTATED, VOID, MaskUnannotated
from .partition import ClientShard, Partition, PooledShard
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

__all__ = [
    'UNANNOTATED', 'VOID', 'CamVidDataset', 'ClassPartitioner', 'ClientBatchSampler', 'ClientDataset', 'ClientShard',
    'ClientStream', 'DirichletPartitioner', 'GroupPartitioner', 'IIDPartitioner', 'LoadCachedImage', 'LoadStreetScene',
    'ManifestPartitioner', 'MarkUnannotated', 'MaskUnannotated', 'Partition', 'Pass', 'PartitionSummary', 'Partitioner',
    'PooledShard', 'SampleKey', 'StreetScenesDataset', 'image_names', 'scan_labels'
]
