"""What is looked at before anything is trained."""
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.dist import barrier, is_main_process
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.decode_heads import PointHead, STDCHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from fedseg_mm.datasets import UNANNOTATED, scan_labels
from fedseg_mm.errors import FedSegError
from fedseg_mm.models import BackCELoss


@contextmanager
def first_process_first() -> Iterator[None]:
    """Have the other processes wait until the first one is through."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def check_evaluation(dataloader: DataLoader) -> None:
    """Look at every image and label of an evaluation before it starts.

    Raises:
        FedSegError: A file cannot be evaluated on; names it.
    """
    dataset = dataloader.dataset
    if isinstance(dataset, (BaseDataset, ConcatDataset)):  # other wrappers are not checked
        scan_labels(dataset, dataloader.num_workers, 'evaluation')


def check_model(model: nn.Module, dataset, batch_size: int) -> None:
    """Refuse a model that cannot be trained on the data set.

    Args:
        model (nn.Module): An MMSegmentation segmentor.
        dataset (BaseDataset or ConcatDataset): MMSegmentation's data set.
        batch_size (int): Images per batch.

    Raises:
        FedSegError: Names the config's key, and the value that it should have.
    """
    classes = len(dataset.metainfo['classes'])
    if classes > UNANNOTATED:
        raise FedSegError(f'the data set has {classes} classes, but at most {UNANNOTATED} fit beside the labels '
                          'for unannotated and void pixels')
    for name, module in model.named_modules():
        if isinstance(module, PointHead) and any(isinstance(loss, BackCELoss) for loss in module.modules()):
            raise FedSegError(f'model.{name} is a PointHead, whose labels are points and not maps: give it another '
                              'loss than BackCELoss')
        if isinstance(module, BaseDecodeHead) and not isinstance(module, STDCHead) and (
                module.num_classes != classes):
            raise FedSegError(f'model.{name} has num_classes={module.num_classes}, but the data set has {classes} '
                              f'classes: set model.{name}.num_classes={classes}')
    preprocessor = model.data_preprocessor
    if isinstance(preprocessor, SegDataPreProcessor) and preprocessor.size is None and (
            preprocessor.size_divisor is None):
        raise FedSegError('model.data_preprocessor has no `size`, to which images of a batch are padded: set '
                          "model.data_preprocessor.size to the train pipeline's crop size")
    if batch_size < 2 and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise FedSegError('batch normalisation cannot train on batches of one image: set '
                          'train_dataloader.batch_size to at least 2, or use another norm_cfg, such as GN')
