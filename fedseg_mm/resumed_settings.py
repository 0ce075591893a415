"""Which settings count when a run is resumed: those of its checkpoint, or those of its config."""
import re
from collections.abc import Iterator, Mapping

from fedseg_mm.errors import FedSegError, shown
from fedseg_mm.resume import CheckpointFile

#: Settings that change neither weights nor figures, are checked by other means, or are only where training begins.
NOT_COMPARED = {
    'train_dataloader.num_workers', 'train_dataloader.persistent_workers', 'train_dataloader.pin_memory',
    'train_dataloader.prefetch_factor', 'train_dataloader.timeout', 'train_dataloader.multiprocessing_context',
    'train_dataloader.sampler', 'train_dataloader.batch_sampler', 'federated.partitioner', 'federated.backend'}
NOT_COMPARED_ANYWHERE = {'data_root', 'init_cfg', 'pretrained'}
#: At most so many differences are listed.
MOST_LINES = 20


def settings_of(cfg: Mapping, federated: Mapping) -> dict:
    """The settings that a checkpoint keeps, by dotted key: all that may change weights, as plain values."""
    schedules = cfg.get('param_scheduler') or []
    parts = dict(
        federated=federated, model=cfg.get('model'), optim_wrapper=cfg.get('optim_wrapper'),
        param_scheduler=[schedules] if isinstance(schedules, Mapping) else schedules,
        train_dataloader=cfg.get('train_dataloader'),
        custom_hooks=[hook for hook in cfg.get('custom_hooks') or []
                      if _name(hook.get('type')) not in ('FederatedHook', 'RoundProgressHook')])
    settings = {key: value for part, content in parts.items() for key, value in _flat(content, part)}
    settings['randomness.seed'] = (cfg.get('randomness') or {}).get('seed')
    settings['train_cfg.max_rounds'] = (cfg.get('train_cfg') or {}).get('max_rounds')
    return settings


def _name(value):
    return getattr(value, '__name__', None) or value


def _flat(value, key: str) -> Iterator[tuple[str, object]]:
    if key in NOT_COMPARED or key.rpartition('.')[2] in NOT_COMPARED_ANYWHERE:
        return
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(item, f'{key}.{name}')
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in value):
        for place, item in enumerate(value):
            yield from _flat(item, f'{key}.{place}')
    elif isinstance(value, (list, tuple)):
        yield key, [_leaf(item) for item in value]
    else:
        yield key, _leaf(value)


def _leaf(value):
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(_name(value))


def _types(settings: Mapping, prefix: str) -> list:
    return [value for key, value in settings.items() if re.fullmatch(prefix + r'(\.\d+)?\.type', key)]


def check_resumable(file: CheckpointFile, settings: Mapping) -> None:
    """Refuse a checkpoint whose optimizer or schedules cannot go on with these settings.

    Raises:
        FedSegError: Names the setting.
    """
    way_out = 'resume with that of the first run, or start from the weights with `load_from=CHECKPOINT`'
    if file.settings is not None:
        for key in ('optim_wrapper.optimizer', 'param_scheduler'):
            before, now = _types(file.settings, key), _types(settings, key)
            if before != now:
                raise FedSegError(f'{key} was {", ".join(before) or "nothing"} when {file.path} was written and is now '
                                  f'{", ".join(now) or "nothing"}, which cannot go on from its state: {way_out}')
    if not file.has_rates and _types(settings, 'param_scheduler'):
        raise FedSegError(f'the checkpoint {file.path} does not hold the rates that its schedule had reached '
                          '(default_hooks.checkpoint.save_optimizer=False): start from the weights with '
                          '`load_from=CHECKPOINT` and the rate that you want')


def differences(file: CheckpointFile, settings: Mapping) -> list[str]:
    """What differs from the settings of the checkpoint, one sentence each, and whether it takes effect."""
    lines = []
    kept = settings if file.settings is None else file.settings  # unknown: nothing can be said
    for key in dict.fromkeys([*kept, *settings]):
        before, now = kept.get(key), settings.get(key)
        if before == now or key == 'train_cfg.max_rounds':
            continue
        change = f'{key} was {_shown(before)} and is now {_shown(now)}'
        if key.startswith('optim_wrapper.optimizer.') or key.startswith('optim_wrapper.paramwise_cfg'):
            lines.append(f'{change}, which has no effect: the rates of the checkpoint go on')
        elif key.startswith('param_scheduler.'):
            lines.append(f'{change}, which has no effect: the schedule of the checkpoint goes on')
        elif key == 'randomness.seed':
            lines.append(f'{change}, which has no effect: the seed of the checkpoint goes on')
        else:
            lines.append(f'{change}, which takes effect')
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f'{len(lines) - MOST_LINES} more settings differ']
    return lines + _ended_schedules(file, settings)


def _shown(value) -> str:
    text = 'not given' if value is None else repr(shown(value)) if isinstance(value, str) else shown(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def _ended_schedules(file: CheckpointFile, settings: Mapping) -> list[str]:
    """Schedules that were made for fewer rounds than are to be trained now."""
    lines: list[str] = []
    rounds = settings.get('train_cfg.max_rounds')
    before = (file.settings or {}).get('train_cfg.max_rounds', file.rounds)
    if not isinstance(rounds, int) or not isinstance(before, int) or rounds <= before:
        return lines
    names = _types(settings, 'param_scheduler')
    for place, state in enumerate(file.schedules):
        if not isinstance(state, dict):
            continue
        name = names[place] if place < len(names) else 'schedule'
        end, turn = state.get('end'), state.get('T_max')
        if isinstance(end, int) and before <= end < rounds:
            lines.append(f'param_scheduler.{place} ({name}) ends after round {end}, so the rate stays at its last '
                         f'value from there to round {rounds}')
        elif isinstance(turn, int) and before <= turn + state.get('begin', 0) < rounds:
            lines.append(f'param_scheduler.{place} ({name}) has T_max={turn}, so the rate rises again after round '
                         f'{turn + state.get("begin", 0)}')
    return lines
