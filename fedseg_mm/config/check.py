"""Checks of a config before anything is built from it."""
import importlib.util
import inspect
import logging
import os
import os.path as osp
import warnings
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import Registry
from mmseg.registry import METRICS, MODELS, OPTIMIZERS, PARAM_SCHEDULERS, TRANSFORMS

from fedseg_mm.config.check_data import check_classes, check_data_folders
from fedseg_mm.config.sections import LOADERS, evaluator_dicts, plain_datasets_of
from fedseg_mm.datasets.client_stream import WORKER_OPTIONS
from fedseg_mm.datasets.labels import VOID
from fedseg_mm.errors import Faults, FedSegError
from fedseg_mm.registry import constructor_parameters, registered, type_name
from fedseg_mm.validation import check_integer, check_keys, check_number

#: What a backend of the visualizer imports, and what is installed to have it.
BACKEND_PACKAGES = {
    'WandbVisBackend': ('wandb', 'wandb'), 'MLflowVisBackend': ('mlflow', 'mlflow'),
    'TensorboardVisBackend': ('tensorboard', 'tensorboard'), 'ClearMLVisBackend': ('clearml', 'clearml'),
    'NeptuneVisBackend': ('neptune', 'neptune'), 'DVCLiveVisBackend': ('dvclive', 'dvclive'),
    'AimVisBackend': ('aim', 'aim')
}
#: What IoUMetric may be asked for, and the figures that it then gives.
IOU_METRICS = {'mIoU': ('aAcc', 'mIoU', 'mAcc'), 'mDice': ('aAcc', 'mDice', 'mAcc'),
               'mFscore': ('aAcc', 'mFscore', 'mPrecision', 'mRecall')}


def check_config(cfg: Config, loaders: tuple[str, ...] = LOADERS[:2]) -> None:
    """Check all of a training's config that can be judged without its model and images.

    Args:
        cfg (Config): The whole config.
        loaders (tuple[str]): The dataloaders whose folders must exist.

    Raises:
        FedSegError: Names all that is wrong, a line for each fault.
    """
    faults = Faults()
    with faults:
        check_data_folders(cfg, loaders)
    for check in (check_classes, _check_sections, _check_loaders, _check_evaluators, _check_save_best, _check_backends,
                  _check_optimizer, _check_schedules, _check_model, check_seed):
        with faults:
            check(cfg)
    faults.report()


# --- sections ---------------------------------------------------------------
def _check_sections(cfg: Config) -> None:
    """Refuse half an evaluation, which MMEngine refuses without the names."""
    faults = Faults()
    for mode in ('val', 'test'):
        names = [f'{mode}_{part}' for part in ('cfg', 'dataloader', 'evaluator')]
        given = [name for name in names if cfg.get(name) is not None]
        if given and len(given) < 3:
            missing = ' and '.join(name for name in names if name not in given)
            faults.add(f'{missing} is None or missing, but {" and ".join(given)} {"is" if len(given) == 1 else "are"} '
                       'given: give all three, or set all three to None')
    for name in ('train_dataloader', 'optim_wrapper'):
        if not isinstance(cfg.get(name), dict):
            faults.add(f'{name} must be a dict, but is {cfg.get(name)!r}: training needs it')
    for name in LOADERS:
        if isinstance(cfg.get(name), dict) and 'dataset' not in cfg[name]:
            faults.add(f'{name} needs `dataset`, which is not given')
    faults.report()


def _check_loaders(cfg: Config) -> None:
    """Refuse numbers of images and workers that are none, and transforms that do not exist."""
    faults = Faults()
    for name in LOADERS:
        loader = cfg.get(name)
        if not isinstance(loader, dict):
            continue
        for option, least in (('batch_size', 1), ('num_workers', 0)):
            if option in loader:
                with faults:
                    check_integer(f'{name}.{option}', loader[option], least)
        for key, dataset in plain_datasets_of(loader.get('dataset') or {}, f'{name}.dataset'):
            transforms = dataset.get('pipeline') or []
            for place, transform in enumerate(transforms):
                with faults:
                    _check_known_keys(TRANSFORMS, transform, f'{key}.pipeline.{place}')
            # that of training is looked at where its labels are masked
            if name == 'val_dataloader' and transforms and not any(
                    'Pack' in str(type_name(one.get('type'))) for one in transforms if isinstance(one, dict)):
                faults.add(f"{key}.pipeline has no dict(type='PackSegInputs'), which must be its last transform")
    faults.report()


def _check_evaluators(cfg: Config) -> None:
    faults = Faults()
    for name in ('val_evaluator', 'test_evaluator'):
        for metric in evaluator_dicts(cfg.get(name)):
            ignored = metric.get('ignore_index', VOID)
            own = type_name(metric.get('type')) == 'IoUMetric'
            unknown = [one for one in _iou_metrics(metric) if one not in IOU_METRICS] if own else []
            if unknown:
                faults.add(f'{name}.iou_metrics names {unknown[0]!r}, which is not one of {", ".join(IOU_METRICS)}')
            if own and ignored != VOID:
                faults.add(f'{name}.ignore_index is {ignored!r}, but void pixels have the label {VOID}: leave it out')
            with faults:
                _check_known_keys(METRICS, metric, name)
    faults.report()


def _iou_metrics(metric: dict) -> list:
    names = metric.get('iou_metrics', ['mIoU'])
    return list(names) if isinstance(names, (list, tuple)) else [names]


def _check_save_best(cfg: Config) -> None:
    """Refuse a best checkpoint by a figure that no evaluation gives, which MMEngine notices after the first one."""
    best = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    metrics = evaluator_dicts(cfg.get('val_evaluator'))
    if not best or best == 'auto' or not metrics or any(type_name(one.get('type')) != 'IoUMetric' for one in metrics):
        return
    figures = sorted({f'{one["prefix"]}/{figure}' if one.get('prefix') else figure for one in metrics
                      for name in _iou_metrics(one) for figure in IOU_METRICS.get(name, ())})
    if not figures:
        return  # reported already
    for name in best if isinstance(best, (list, tuple)) else [best]:
        if name not in figures:
            raise FedSegError(f'default_hooks.checkpoint.save_best is {name!r}, which no evaluation gives: the figures '
                              f'of val_evaluator are {", ".join(figures)}')


def _check_backends(cfg: Config) -> None:
    """Refuse a backend of the visualizer whose package is not installed."""
    faults = Faults()
    for backend in (cfg.get('visualizer') or {}).get('vis_backends') or []:
        name = type_name(backend.get('type'))
        module, package = BACKEND_PACKAGES.get(name, ('', ''))
        if module and importlib.util.find_spec(module) is None:
            faults.add(f'visualizer.vis_backends has {name}, which needs the package {package}, and that is not '
                       f'installed: run `pip install {package}`, or remove the backend')
    faults.report()


def _check_known_keys(registry: Registry, section, key: str, further: tuple[str, ...] = ()) -> None:
    """Refuse an unknown type, and keys that the type does not take; what takes any key is not judged."""
    if not isinstance(section, dict) or 'type' not in section:
        return
    cls = registered(registry, section['type'], key)
    if not inspect.isclass(cls):
        return
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values()) and not further:
        return
    parameters = constructor_parameters(cls)
    known = parameters.keys() - {'params', 'optimizer'}  # which no config gives
    faults = Faults()
    with faults:
        check_keys((name for name in section if name not in ('type', '_scope_')), [*known, *further], key)
    for name, value in section.items():
        default = parameters[name].default if name in parameters else None
        if isinstance(value, str) and isinstance(default, (int, float)) and not isinstance(default, bool):
            faults.add(f'{key}.{name} must be a number, but is the string {value!r}')
    faults.report()


def _check_optimizer(cfg: Config) -> None:
    wrapper = cfg.get('optim_wrapper') or {}
    if not isinstance(wrapper, dict) or 'constructor' in wrapper and 'optimizer' not in wrapper:
        return  # its constructor makes the optimizers
    optimizer = wrapper.get('optimizer')
    if not isinstance(optimizer, dict) or 'type' not in optimizer:
        if any(isinstance(part, dict) and 'optimizer' in part for part in wrapper.values()):
            return  # one per part of the model
        raise FedSegError(f'optim_wrapper.optimizer must be a dict with a `type`, but is {optimizer!r}')
    clip = wrapper.get('clip_grad')
    if isinstance(clip, dict) and 'max_norm' in clip:
        check_number('optim_wrapper.clip_grad.max_norm', clip['max_norm'], above=0)  # else gradients would be reversed
    _check_known_keys(OPTIMIZERS, optimizer, 'optim_wrapper.optimizer')


def _schedules(cfg: Config) -> list[tuple[str, dict]]:
    given = cfg.get('param_scheduler') or []
    return [(f'param_scheduler.{i}', schedule) for i, schedule in
            enumerate([given] if isinstance(given, dict) else given) if isinstance(schedule, dict)]


def _check_schedules(cfg: Config) -> None:
    faults = Faults()
    for key, schedule in _schedules(cfg):
        with faults:
            _check_known_keys(PARAM_SCHEDULERS, schedule, key, ('convert_to_iter_based', 'by_epoch', 'begin', 'end'))
    faults.report()


def _check_model(cfg: Config) -> None:
    """Refuse what a head or loss would refuse with a traceback when it is built."""
    if not isinstance(cfg.get('model'), dict):
        raise FedSegError(f'model must be a dict, but is {cfg.get("model")!r}')
    faults = Faults()
    for key, part in _dicts(cfg.model, 'model'):
        classes, channels, weights = (part.get(name) for name in ('num_classes', 'out_channels', 'class_weight'))
        if isinstance(classes, int) and isinstance(channels, int) and channels not in (1, classes):
            faults.add(f'{key}.out_channels={channels} must be the number of classes, {classes}: leave it out')
        if isinstance(weights, str) and '://' not in weights and not osp.isfile(weights):
            faults.add(f'{key}.class_weight names the file {weights}, which does not exist')
        for name in ('norm_cfg', 'act_cfg', 'conv_cfg'):
            layer = part.get(name)
            if isinstance(layer, dict) and isinstance(layer.get('type'), str) and '.' not in layer['type']:
                with faults:
                    cls = registered(MODELS, layer['type'], f'{key}.{name}')
                    if name == 'norm_cfg':
                        _check_norm_layer(cls, layer, f'{key}.{name}')
            elif name == 'norm_cfg' and isinstance(layer, dict) and 'type' not in layer:
                faults.add(f'{key}.norm_cfg needs `type`, which is not given')
        losses = part.get('loss_decode')
        for place, loss in enumerate(losses) if isinstance(losses, (list, tuple)) else [(None, losses)]:
            with faults:
                _check_known_keys(MODELS, loss, f'{key}.loss_decode' + ('' if place is None else f'.{place}'))
    faults.report()


def _check_norm_layer(cls, layer: dict, key: str) -> None:
    """Refuse keys that a normalisation layer does not take, or lacks."""
    if not inspect.isclass(cls):
        return
    parameters = inspect.signature(cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    sizes = ('num_features', 'num_channels', 'normalized_shape')  # the model gives them
    check_keys(layer, [*(name for name in parameters if name not in sizes), 'type', '_scope_', 'requires_grad'], key)
    for name, p in parameters.items():
        if p.default is p.empty and name not in sizes and name not in layer and p.kind is p.POSITIONAL_OR_KEYWORD:
            raise FedSegError(f'{key} of type {layer["type"]} needs `{name}`, which is not given')


def _dicts(value, key: str) -> Iterator[tuple[str, dict]]:
    """All dicts within a section, with their keys."""
    if isinstance(value, dict):
        yield key, value
        for name, item in value.items():
            yield from _dicts(item, f'{key}.{name}')
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _dicts(item, f'{key}.{place}')


def weight_sources(cfg: Config) -> list[str]:
    """Keys under which a config names the weights that its training starts from."""
    sources = [key for key, value in (('load_from', cfg.get('load_from')),
                                      ('model.pretrained', cfg.model.get('pretrained'))) if value]
    for key, part in _dicts(cfg.model, 'model'):
        given = part.get('init_cfg')
        if any(isinstance(one, dict) and type_name(one.get('type')) == 'Pretrained'
               for one in (given if isinstance(given, (list, tuple)) else [given])):
            sources.append(f'{key}.init_cfg')
    return sources


def check_seed(cfg: Config) -> None:
    """Refuse a seed that numpy refuses, and settings of randomness under which a federated run fails.

    Raises:
        FedSegError: Says which.
    """
    randomness = cfg.get('randomness') or {}
    if randomness.get('diff_rank_seed'):
        raise FedSegError('randomness.diff_rank_seed=True would have every process draw a cohort of its own: leave it '
                          'out')
    if randomness.get('deterministic') and torch.cuda.is_available():
        raise FedSegError('randomness.deterministic=True fails on a GPU, where IoUMetric and pooling have no '
                          'deterministic implementation: leave it out; the same seed still draws the same cohorts and '
                          'crops')
    seed = randomness.get('seed')
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32):
        raise FedSegError(f'randomness.seed must be an integer from 0 to {2**32 - 1}, but is {seed!r}')


# --- warnings and what is put right -----------------------------------------
def warn_of_iterations(cfg: Config) -> None:
    """Say so where a setting was meant for iterations, which there are fewer of: one per round."""
    rounds = cfg.train_cfg.max_rounds
    for key, schedule in _schedules(cfg):
        for name in ('begin', 'end', 'milestones', 'T_max', 'step_size'):
            value = schedule.get(name)
            times = [one for one in (value if isinstance(value, (list, tuple)) else [value])
                     if isinstance(one, int) and one < 2**31]
            late = [one for one in times if one > rounds or (one == rounds and name == 'begin')]
            if late:
                what = f'{key}.{name}={late[0] if len(times) == 1 else late}'
                print_log(f'{what} is beyond max_rounds={rounds}: schedules count rounds.', 'current',
                          level=logging.WARNING)
    interval = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('interval', -1)
    if interval > rounds:
        print_log(f'default_hooks.checkpoint.interval={interval} is beyond max_rounds={rounds}: only the last round '
                  'is saved.', 'current', level=logging.WARNING)


def warn_of_workers(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Say once, instead of torch for every loader, that there are more worker processes than CPU cores."""
    warnings.filterwarnings('ignore', 'This DataLoader will create', UserWarning)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    for name in loaders:
        workers = (cfg.get(name) or {}).get('num_workers')
        if isinstance(workers, int) and workers > cores:
            print_log(f'{name}.num_workers={workers} is more than the {cores} CPU core{"s" * (cores > 1)} of this '
                      'machine: lower it if loading is slow.', 'current', level=logging.WARNING)
            return


def drop_worker_options(cfg: Config) -> None:
    """Take off what a DataLoader refuses without worker processes, in place."""
    for name in LOADERS:
        loader = cfg.get(name)
        if isinstance(loader, dict) and not loader.get('num_workers'):
            for option in WORKER_OPTIONS:
                if loader.get(option):
                    del loader[option]
