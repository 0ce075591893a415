"""Checks of model and images before anything is trained."""
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from mmcv.transforms import Pad, RandomResize, Resize
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.dist import barrier, is_main_process
from mmengine.model import BaseDataPreprocessor
from mmseg.datasets.transforms import RandomCrop
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.decode_heads import PointHead, STDCHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import DiceLoss
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from fedseg_mm.datasets import UNANNOTATED, VOID, scan_labels
from fedseg_mm.datasets.label_scan import plain_datasets
from fedseg_mm.datasets.partition_dataset import check_class_names
from fedseg_mm.errors import Faults, FedSegError
from fedseg_mm.models import BackCELoss, head_losses


@contextmanager
def first_process_first() -> Iterator[None]:
    """Have the other processes wait until the first one is through."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def check_evaluation(dataloader: DataLoader, evaluator) -> str | None:
    """Look at every image and label of an evaluation before it starts.

    Args:
        dataloader (DataLoader): That of the evaluation.
        evaluator (Evaluator): Where all its metrics only write predictions
            (``format_only``), images need no labels.

    Returns:
        str, optional: A sentence on classes that the evaluation never sees.

    Raises:
        FedSegError: Files cannot be evaluated on; names them.
    """
    dataset = dataloader.dataset
    if not isinstance(dataset, (BaseDataset, ConcatDataset)):  # other wrappers are not checked
        return None
    if not dataset.metainfo.get('classes'):
        raise FedSegError('the evaluation data set has no class names: set metainfo=dict(classes=...) of its '
                          'dataloader.dataset to that of the training')
    metrics = getattr(evaluator, 'metrics', [])
    labelled = not metrics or not all(getattr(metric, 'format_only', False) for metric in metrics)
    counts = scan_labels(dataset, dataloader.num_workers, 'evaluation', labelled=labelled)
    names = dataset.metainfo['classes']
    unseen = [str(names[index]) for index in np.flatnonzero(~(counts.classes > 0).any(0))]
    if not labelled or not unseen:
        return None
    listed = ', '.join(unseen[:10]) + (', …' if unseen[10:] else '')
    return (f'No evaluated image shows {listed}: mIoU is the mean over the other {len(names) - len(unseen)} of '
            f'{len(names)} classes, unless {"it" if len(unseen) == 1 else "one of them"} is predicted '
            'somewhere and counts as 0.')


def check_model(model: nn.Module, dataset, batch_size: int) -> None:
    """Refuse a model that cannot be trained on the data set.

    Args:
        model (nn.Module): An MMSegmentation segmentor.
        dataset (BaseDataset or ConcatDataset): MMSegmentation's data set.
        batch_size (int): Images per batch.

    Raises:
        FedSegError: Names the config's keys, and the values that they should
            have, a line for each fault.
    """
    check_class_names(dataset)
    faults = Faults()
    classes = len(dataset.metainfo['classes'])
    if classes > UNANNOTATED:
        faults.add(f'the data set has {classes} classes, but at most {UNANNOTATED} fit beside the labels for '
                   'unannotated and void pixels')
    if classes < 2:
        faults.add(f'the data set has one class, {dataset.metainfo["classes"][0]}, and nothing to tell it apart '
                   "from: name the rest too, as in metainfo=dict(classes=('background', "
                   f'{dataset.metainfo["classes"][0]!r})), write 0 for it into the masks, and set num_classes=2')
    _check_heads(model, classes, faults)
    _check_sizes(model, dataset, faults)
    if batch_size < 2 and any(isinstance(module, _BatchNorm) for module in model.modules()):
        faults.add('batch normalisation cannot train on batches of one image: set train_dataloader.batch_size to at '
                   'least 2, or use another norm_cfg, such as GN')
    faults.report()


def _check_heads(model: nn.Module, classes: int, faults: Faults) -> None:
    """Classes, channels and void of every head and its losses."""
    for name, module in model.named_modules():
        if not isinstance(module, BaseDecodeHead):
            continue
        key = f'model.{name}'
        if isinstance(module, PointHead) and any(isinstance(loss, BackCELoss) for loss in module.modules()):
            faults.add(f'{key} is a PointHead, whose labels are points and not maps: give it a loss other than '
                       'BackCELoss')
        if module.ignore_index not in (VOID, None):
            faults.add(f'{key}.ignore_index is {module.ignore_index}, but void pixels have the label {VOID}: leave it '
                       'out; to keep a class out of the training, make it void in the data set (reduce_zero_label, or '
                       'metainfo.classes without it)')
        if isinstance(module, STDCHead):
            continue
        if module.num_classes != classes:
            faults.add(f'{key} has num_classes={module.num_classes}, but the data set has {classes} classes: set '
                       f'{key}.num_classes={classes}')
        elif module.out_channels == 1 and classes != 2:
            faults.add(f'{key}.out_channels=1 only tells two classes apart, but there are {classes}: leave it out')
    for name, head, loss in head_losses(model):
        key, kind = f'model.{name}', type(loss).__name__
        if isinstance(head, STDCHead):
            continue
        if isinstance(loss, BackCELoss) and head.out_channels == 1:
            faults.add(f'{key}: BackCELoss needs a score for each class, but its head has out_channels=1: leave '
                       'out_channels and threshold out')
        weights = getattr(loss, 'class_weight', None)
        if weights is not None and hasattr(weights, '__len__') and len(weights) != head.num_classes:
            faults.add(f'{key}.class_weight has {len(weights)} numbers for {head.num_classes} classes: give one for '
                       'each class')
        for attribute in ('ignore_index', 'ignore_label'):
            ignored = getattr(loss, attribute, VOID)
            if ignored not in (VOID, None) and not isinstance(loss, DiceLoss):  # whose one is a class to leave out
                faults.add(f'{key}.{attribute} of {kind} is {ignored}, but void pixels have the label {VOID}: leave it '
                           'out')


def _check_sizes(model: nn.Module, dataset, faults: Faults) -> None:
    """What images and labels are cropped and padded to, and with what."""
    preprocessor = model.data_preprocessor
    padded = None
    if type(preprocessor) is BaseDataPreprocessor:  # MMEngine's, where the config has none
        faults.add('the model has no data_preprocessor, so images are neither normalised nor padded to one size: '
                   "set model.data_preprocessor=dict(type='SegDataPreProcessor', mean=[...], std=[...], size=(height, "
                   f'width), pad_val=0, seg_pad_val={VOID})')
    if isinstance(preprocessor, SegDataPreProcessor):
        padded = preprocessor.size
        if padded is not None and (not isinstance(padded, (tuple, list)) or len(padded) != 2):
            faults.add(f'model.data_preprocessor.size must be (height, width), but is {padded!r}')
            padded = ()
        if padded is None and preprocessor.size_divisor is None:
            faults.add('model.data_preprocessor has no `size`, to which images of a batch are padded: set '
                       "model.data_preprocessor.size to the train pipeline's crop size")
        if preprocessor.seg_pad_val != VOID:
            faults.add(f'model.data_preprocessor.seg_pad_val is {preprocessor.seg_pad_val}, which would turn padding '
                       f'into a class: set it to {VOID}, void')
    for part in plain_datasets(dataset):
        crop = None
        for transform in part.pipeline.transforms:
            if isinstance(transform, RandomCrop):
                crop = tuple(transform.crop_size)
            elif isinstance(transform, (Resize, RandomResize, Pad)):
                crop = None
            fill = getattr(transform, 'seg_pad_val', None)
            if isinstance(getattr(transform, 'pad_val', None), dict):
                fill = transform.pad_val.get('seg')
            if fill is not None and fill != VOID:
                faults.add(f'{type(transform).__name__} of the train pipeline pads labels with {fill}, which would '
                           f'turn padding into a class: set its seg_pad_val (or pad_val.seg) to {VOID}, void')
        if crop and padded and (padded[0] < crop[0] or padded[1] < crop[1]):
            faults.add(f'model.data_preprocessor.size is {tuple(padded)}, but images are cropped to {crop}, and '
                       f'smaller ones could not share a batch with them: set the size to {crop}')


def check_channels(model: nn.Module, channels: np.ndarray | None) -> None:
    """Refuse images with another number of channels than the model normalises.

    Args:
        model (nn.Module): An MMSegmentation segmentor.
        channels (np.ndarray, optional): Those of each image, 0 where they are
            not known.

    Raises:
        FedSegError: They do not fit.
    """
    mean = getattr(model.data_preprocessor, 'mean', None)
    if mean is None or channels is None or not getattr(model.data_preprocessor, '_enable_normalize', False):
        return
    found = set(channels[channels > 0].tolist()) - {mean.numel()}
    if found:
        raise FedSegError(f'the images have {found.pop()} channels as the train pipeline loads them, but '
                          f'model.data_preprocessor.mean has {mean.numel()} numbers: load them with '
                          "LoadImageFromFile's color_type='color', or give as many numbers in mean and std, and as "
                          'many in_channels in the backbone')
