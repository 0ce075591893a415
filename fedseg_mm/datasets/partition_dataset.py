"""From a data set and a partitioner to who holds what."""
import numpy as np

from fedseg_mm.datasets.image_names import image_names
from fedseg_mm.datasets.label_scan import LabelCounts, plain_datasets, scan_labels
from fedseg_mm.datasets.labels import VOID
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
    check_class_names(dataset)
    names, classes = image_names(dataset), tuple(dataset.metainfo['classes'])
    counts = scan_labels(dataset, num_workers, 'train', partitioner.unannotated_values(names, classes))
    _check_void(dataset, counts)
    return PartitionSummary(partitioner.partition(counts.classes, names, classes), names, classes, counts.classes,
                            counts.unannotated, counts.void, counts.channels)


def check_class_names(dataset) -> None:
    """Refuse a data set that does not say what its classes are.

    Raises:
        FedSegError: Says what to set.
    """
    if not dataset.metainfo.get('classes'):
        raise FedSegError('the training data set has no class names: set train_dataloader.dataset.metainfo='
                          "dict(classes=('road', ...)), and the same for evaluation")


def _check_void(dataset, counts: LabelCounts) -> None:
    """Refuse labels of one class and void, which result from a class that is written as void."""
    classes = dataset.metainfo['classes']
    shown = np.flatnonzero(counts.classes.any(0))
    if len(shown) != 1 or len(classes) < 2 or counts.unannotated.any() or not counts.void.any():
        return
    others = [index for index in range(len(classes)) if index != shown[0]]
    names = ' or '.join(str(classes[index]) for index in others[:3]) + (' or another class' if others[3:] else '')
    if any(part.metainfo.get('reduce_zero_label') for part in plain_datasets(dataset)):
        cause = ('reduce_zero_label=True turns the value 0 into void and 1 into 0, so set it to False, or list the '
                 'classes from 1 on only')
    else:
        write = f'{others[0]} for {classes[others[0]]}' if len(others) == 1 else "the class's index"
        cause = f'{VOID} is void here and is not trained, so write {write} into the masks instead of {VOID}'
    raise FedSegError(f'the training labels show only {classes[shown[0]]} and void, and no pixel of {names}: {cause}')
