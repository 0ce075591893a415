"""Puts other data into a config."""
import copy
import logging

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from fedseg_mm.config.check_data import class_names
from fedseg_mm.config.sections import plain_datasets_of
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import type_name

#: Heads whose number of classes is not that of the data set.
OTHER_HEADS = ('STDCHead', )


def replace_data(cfg: Config, data: Config) -> None:
    """Have a config train and evaluate on other data, in place, and say what changed.

    The loaders, evaluators and evaluation loops of ``data`` replace those of
    the config; without a test set, the evaluation's is the test set, and
    without either there is no evaluation. All heads get as many classes as
    the data set has, and batches are padded to its crop size.

    Args:
        cfg (Config): Any config of MMSegmentation.
        data (Config): ``train_dataloader``, ``val_dataloader`` and so on,
            such as a file of ``configs/_base_/datasets/``.

    Raises:
        FedSegError: It has no training data, or does not name its classes.
    """
    dataset = (data.get('train_dataloader') or {}).get('dataset')
    if not isinstance(dataset, dict):
        raise FedSegError(f'--data {data.filename} has no `train_dataloader` with a `dataset`: take a file such as '
                          'those of configs/_base_/datasets/')
    sections = {'train_dataloader': data.train_dataloader, **_evaluation(data, 'val', 'ValLoop')}
    test = _evaluation(data, 'test', 'TestLoop')
    if test['test_dataloader'] is None and sections['val_dataloader'] is not None:
        test = dict(test_dataloader=data.val_dataloader, test_evaluator=sections['val_evaluator'],
                    test_cfg=dict(type='TestLoop'))
    for name, section in {**sections, **test}.items():
        cfg._cfg_dict.pop(name, None)
        cfg[name] = copy.deepcopy(section)
    if data.get('tta_pipeline') is not None:
        cfg.tta_pipeline = data.tta_pipeline
    _log(f'the data come from {data.filename}')

    key, first = next(iter(plain_datasets_of(dataset, 'train_dataloader.dataset')))
    classes = class_names(first, key)
    if classes is None:
        raise FedSegError(f'--data {data.filename} does not say what its classes are: set {key}.metainfo='
                          "dict(classes=('road', ...))")
    if isinstance(cfg.get('model'), dict):
        _set_classes(cfg.model, 'model', len(classes))
        _set_size(cfg.model, first.get('pipeline') or [])


def _evaluation(data: Config, mode: str, loop: str) -> dict:
    """Loader, evaluator and loop of an evaluation, or None for each."""
    names = [f'{mode}_{part}' for part in ('dataloader', 'evaluator', 'cfg')]
    if data.get(names[0]) is None:
        return dict.fromkeys(names)
    defaults = None, dict(type='IoUMetric', iou_metrics=['mIoU']), dict(type=loop)
    return {name: data.get(name) or default for name, default in zip(names, defaults)}


def _log(sentence: str) -> None:
    print_log(f'--data: {sentence}.', 'current', level=logging.INFO)


def _set_classes(value, path: str, classes: int) -> None:
    """Have every head tell the data set's classes apart."""
    if isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            _set_classes(item, f'{path}.{place}', classes)
    if not isinstance(value, dict):
        return
    for name, item in value.items():
        _set_classes(item, f'{path}.{name}', classes)
    before = value.get('num_classes')
    if not isinstance(before, int) or before == classes or type_name(value.get('type')) in OTHER_HEADS:
        return
    value['num_classes'] = classes
    _log(f'{path}.num_classes is {classes} instead of {before}')
    if value.get('out_channels') in (1, before) and value['out_channels'] != classes:
        value.pop('out_channels')
        _log(f'{path}.out_channels is left out')
    losses = value.get('loss_decode') or []
    for loss in losses if isinstance(losses, (list, tuple)) else [losses]:
        weights = loss.get('class_weight')
        if isinstance(weights, (list, tuple)) and len(weights) != classes:
            loss.pop('class_weight')
            _log(f'{path}.loss_decode.class_weight is left out: it has weights for {len(weights)} classes')


def _set_size(model: ConfigDict, pipeline: list) -> None:
    """Pad batches to the size that the data are cropped to."""
    crops = [one['crop_size'] for one in pipeline
             if isinstance(one, dict) and type_name(one.get('type')) == 'RandomCrop' and 'crop_size' in one]
    preprocessor = model.get('data_preprocessor')
    if not crops or not isinstance(preprocessor, dict) or preprocessor.get('size_divisor') is not None:
        return
    size = (crops[-1], crops[-1]) if isinstance(crops[-1], int) else tuple(crops[-1])
    if tuple(preprocessor.get('size') or ()) != size:
        preprocessor['size'] = size
        _log(f'model.data_preprocessor.size is {size}, the crop size')
