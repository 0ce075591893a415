"""From a data set and a partitioner to who holds what."""
from fedseg_mm.datasets.image_names import image_names
from fedseg_mm.datasets.label_scan import scan_labels
from fedseg_mm.datasets.partition_summary import PartitionSummary
from fedseg_mm.datasets.partitioners import Partitioner
from fedseg_mm.errors import FedSegError


def partition_dataset(dataset, partitioner: Partitioner, num_workers: int = 0) -> PartitionSummary:
    """Look at all labels of a data set and split it among clients.

    Args:
        dataset (BaseDataset or ConcatDataset): MMSegmentation's data set.
        partitioner (Partitioner): Who is to hold what.
        num_workers (int): Processes that read files. Defaults to 0.

    Returns:
        PartitionSummary: The partition, and what its clients hold.

    Raises:
        FedSegError: A file or the partition is at fault; names it.
    """
    dataset.full_init()
    if not dataset.metainfo.get('classes'):
        raise FedSegError('the training data set has no class names: set train_dataloader.dataset.metainfo='
                          "dict(classes=('road', ...)), and the same for evaluation")
    names, classes = image_names(dataset), tuple(dataset.metainfo['classes'])
    counts = scan_labels(dataset, num_workers, 'train', partitioner.unannotated_values(names, classes))
    return PartitionSummary(partitioner.partition(counts.classes, names, classes), names, classes, *counts)
