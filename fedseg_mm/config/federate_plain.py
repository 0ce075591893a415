"""Makes any MMSegmentation config a federated one."""
import logging

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import type_name

#: Keys of a schedule that are points in time.
TIMES = ('begin', 'end', 'T_max', 'step_size', 'total_iters', 'total_steps')
#: Keys that are lists of these.
LISTS_OF_TIMES = ('milestones', 'periods')
#: Heads that do not tell classes apart in a map.
OTHER_HEADS = ('STDCHead', 'PointHead')
#: Losses that teach a client that every pixel is one of its annotated classes.
CROSS_ENTROPIES = ('CrossEntropyLoss', 'OhemCrossEntropy')


def federate_plain(cfg: Config, federated: Config) -> None:
    """Have a plain config train in federated rounds, in place, and say what changed.

    Args:
        cfg (Config): A config that trains by iterations or epochs.
        federated (Config): ``federated``, ``train_cfg`` with ``max_rounds``
            and, if cross-entropy in the heads is to be replaced,
            ``head_loss``.

    Raises:
        FedSegError: It lacks a section.
    """
    for key in ('federated', 'train_cfg'):
        if key not in federated:
            raise FedSegError(f'{federated.filename} has no `{key}`: take a file of configs/_base_/federated/ or '
                              'write one like it')
    federated = Config(dict(federated._cfg_dict), filename=federated.filename)
    changes = []
    head_loss = federated._cfg_dict.pop('head_loss', None)
    before = cfg.get('train_cfg') or {}
    length = before.get('max_iters') or before.get('max_epochs')
    rounds = federated.train_cfg.get('max_rounds')
    if not isinstance(rounds, int) or rounds < 1:
        raise FedSegError(f'{federated.filename}: train_cfg.max_rounds must be an integer of at least 1, but is '
                          f'{rounds!r}')
    for key in federated._cfg_dict:
        cfg._cfg_dict.pop(key, None)
    cfg.merge_from_dict(federated._cfg_dict.to_dict())
    imports = (cfg.get('custom_imports') or dict(imports=[]))['imports']
    imports = [imports] if isinstance(imports, str) else imports
    cfg.custom_imports = dict(imports=list(dict.fromkeys(['fedseg_mm', *imports])),
                              allow_failed_imports=False)
    if not cfg.get('randomness'):
        cfg.randomness = dict(seed=0)
    if length and type_name(before.get('type')) != 'FederatedTrainLoop':
        unit = 'iterations' if before.get('max_iters') else 'epochs'
        changes.append(f'{length} {unit} became {rounds} round{"s" * (rounds > 1)}')
        changes += _scale_schedules(cfg, rounds / length, unit)
        changes += _scale_hooks(cfg, rounds / length, unit)
    if head_loss is not None:
        changes += _replace_losses(cfg.model, head_loss)
    dataset: dict = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    if type_name(dataset.get('type')) == 'RepeatDataset':
        cfg.train_dataloader.dataset = dataset['dataset']
        changes.append('RepeatDataset was removed from the training data: local epochs repeat the images')
    sampler = (cfg.get('train_dataloader') or {}).pop('sampler', None)
    if sampler is not None:
        changes.append(f'per-client samplers replaced {type_name(sampler["type"])}')
    for change in changes:
        print_log(f'--federated: {change}.', 'current', level=logging.INFO)


def _scaled(value: int, ratio: float) -> int:
    return max(1, round(value * ratio)) if value > 0 else value


def _scale_schedules(cfg: Config, ratio: float, unit: str) -> list[str]:
    """Schedules by iteration or epoch become schedules by round."""
    schedules, changes = [], []
    given = cfg.get('param_scheduler') or []
    for schedule in [given] if isinstance(given, dict) else given:
        schedule = dict(schedule)
        name = type_name(schedule['type'])
        if unit == 'epochs' and not schedule.get('by_epoch', True):
            changes.append(f'{name} counts iterations, whose number per epoch is unknown, and was left out')
            continue
        schedule.pop('convert_to_iter_based', None)
        old = schedule.get('begin', 0), schedule.get('end')
        for key in TIMES:
            if isinstance(schedule.get(key), int):
                schedule[key] = _scaled(schedule[key], ratio)
        for key in LISTS_OF_TIMES:
            if key in schedule:
                schedule[key] = [_scaled(value, ratio) for value in schedule[key]]
        schedule['by_epoch'] = True
        begin, end = schedule.get('begin', 0), schedule.get('end')
        span = f'{old[0]} to {old[1]}' if old[1] is not None else f'{old[0]} on'
        if end is not None and end - begin < 2 and name != 'ConstantLR':
            changes.append(f'{name} ({span}) is shorter than two rounds and was left out')
            continue
        schedules.append(schedule)
        changes.append(f'{name} ({span}) runs from round {begin} to {"the last" if end is None else end}')
    cfg.param_scheduler = schedules
    return changes


def _scale_hooks(cfg: Config, ratio: float, unit: str) -> list[str]:
    """Hooks that count iterations count rounds."""
    changes = []
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    checkpoint = dict(hooks.get('checkpoint') or dict(type='CheckpointHook'))
    old = checkpoint.get('interval', 1)
    checkpoint.update(by_epoch=True, interval=_scaled(old, ratio), filename_tmpl='round_{}.pth')
    checkpoint.setdefault('max_keep_ckpts', 2)
    hooks.checkpoint = checkpoint
    every = 'every round' if checkpoint['interval'] == 1 else f'every {checkpoint["interval"]} rounds'
    changes.append(f'a checkpoint is written {every} instead of every {old} {unit}')
    hooks.logger = dict(type='RoundLoggerHook', interval=1)
    hooks.mean_evaluation = dict(type='MeanEvaluationHook')
    cfg.log_processor = dict(type='RoundLogProcessor')
    for hook in cfg.get('custom_hooks') or []:
        if type_name(hook['type']) != 'EMAHook':
            continue
        for key in ('begin_iter', 'begin_epoch'):
            if hook.get(key):
                hook[key] = _scaled(hook[key], ratio)
        changes.append('EMAHook averages the global model once per round, with the momentum that was meant for '
                       'iterations: raise it to forget as fast as before')
    return changes


def _replace_losses(value, head_loss: dict, path: str = 'model') -> list[str]:
    """Put ``head_loss`` in the place of every cross-entropy over classes, with its weights."""
    changes: list[str] = []
    if isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            changes += _replace_losses(item, head_loss, f'{path}.{place}')
        return changes
    if not isinstance(value, dict):
        return changes
    for key, item in value.items():
        if key != 'loss_decode':
            changes += _replace_losses(item, head_loss, f'{path}.{key}')
    if type_name(value.get('type')) == 'EncHead' and value.get('use_se_loss', True):
        # EncHead cannot do without it
        value['loss_se_decode'] = ConfigDict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.0)
        changes.append(f'{path}.loss_se_decode gets the weight 0: it would teach that classes that a client does not '
                       'annotate are absent')
    if 'loss_decode' not in value:
        if path.startswith('model.decode_head') and 'num_classes' in value:
            changes.append(f'{path} has no `loss_decode` and keeps its own loss')
        return changes
    losses = value['loss_decode']
    if value.get('out_channels') == 1 or type_name(value.get('type')) in OTHER_HEADS:
        changes.append(f'{path}.loss_decode is kept, because its head does not tell classes apart')
        return changes
    is_list = isinstance(losses, (list, tuple))
    replaced = []
    for loss in losses if is_list else [losses]:
        name = type_name(loss.get('type'))
        if name in CROSS_ENTROPIES:
            kept = {key: loss[key] for key in ('loss_weight', 'class_weight', 'loss_name') if key in loss}
            loss = ConfigDict({**head_loss, **kept})
            changes.append(f'{path}.loss_decode: {head_loss["type"]} replaced {name}')
        replaced.append(loss)
    value['loss_decode'] = replaced if is_list else replaced[0]
    return changes
