"""What of a run's config a site is sent, and what it refuses to build."""
import re
from collections.abc import Iterator, Mapping
from typing import Any

import mmengine.registry
import mmseg.registry
from mmengine.registry import Registry

import fedseg_mm.registry
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import registered, type_name

#: What a config may say to a site.
SECTIONS = ('model', 'train_dataloader', 'train_pipeline', 'val_pipeline', 'optim_wrapper', 'federated', 'classes',
            'seed', 'channels_last')
#: Keys that a site takes from nobody: what loads files, runs code or says where a name is looked up.
LEFT_OUT = ('init_cfg', 'pretrained', 'checkpoint', '_scope_')
_FILE = re.compile(r'[/\\~:]|(^|\.)(pkl|pickle|pth?|ckpt|bin|safetensors|np[yz]|py|json|ya?ml|so)$|^\.\.?$',
                   re.IGNORECASE)


def to_json(value) -> Any:
    """A config as JSON, in which tuples and classes are told apart from lists and names."""
    if isinstance(value, Mapping):
        return {str(key): to_json(one) for key, one in value.items() if key not in LEFT_OUT}
    if isinstance(value, tuple):
        return {'(': [to_json(one) for one in value]}
    if isinstance(value, list):
        return [to_json(one) for one in value]
    if isinstance(value, type):
        return type_name(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise FedSegError(f'a config for silos holds names and numbers, but this one holds {value!r:.80}: name a '
                      'registered class')


def from_json(value) -> Any:
    """What :func:`to_json` was given."""
    if isinstance(value, dict):
        if set(value) == {'('}:
            return tuple(from_json(one) for one in value['('])
        return {key: from_json(one) for key, one in value.items()}
    return [from_json(one) for one in value] if isinstance(value, list) else value


def sections_for_sites(cfg, settings: Mapping, classes: tuple[str, ...], seed: int) -> dict:
    """What a site needs of a run's config, as JSON.

    Args:
        cfg (Config): The whole config.
        settings (Mapping): Its ``federated``.
        classes (tuple[str]): All classes.
        seed (int): Seed of the run.

    Raises:
        FedSegError: It holds what no message can.
    """
    loader, val = cfg.train_dataloader, cfg.get('val_dataloader')
    return to_json(dict(
        model=cfg.model, classes=classes, seed=seed,
        train_dataloader={key: loader[key] for key in ('batch_size', 'drop_last', 'collate_fn') if key in loader},
        train_pipeline=plain_dataset(loader['dataset'])['pipeline'],
        val_pipeline=plain_dataset(val['dataset'])['pipeline'] if val else [],
        optim_wrapper=cfg.optim_wrapper,
        # the one hook that changes what training computes
        channels_last=any(type_name(hook.get('type')) == 'ChannelsLastHook' for hook in cfg.get('custom_hooks') or []),
        federated={key: value for key, value in settings.items()
                   if key in ('local_epochs', 'algorithm', 'processors', 'sampler', 'clients_per_round')}))


def hooks_of_others(cfg) -> list[str]:
    """Names of the hooks in ``custom_hooks`` that are neither OpenMMLab's nor ours, and may mean to change training."""
    kinds = (registered(mmengine.registry.HOOKS, hook.get('type')) for hook in cfg.get('custom_hooks') or [])
    return [type_name(kind) for kind in kinds if kind is not None
            and kind.__module__.partition('.')[0] not in ('fedseg_mm', 'mmengine', 'mmseg')]


def plain_dataset(dataset: Mapping) -> Mapping:
    """The data set within those that repeat or join others.

    Raises:
        FedSegError: None of them has a pipeline.
    """
    while 'pipeline' not in dataset:
        inner = dataset.get('dataset') or next(iter(dataset.get('datasets') or ()), None)
        if not isinstance(inner, Mapping):
            raise FedSegError(f'{type_name(dataset.get("type"))} has no pipeline, which sites load their images by')
        dataset = inner
    return dataset


def class_names(dataset: Mapping) -> tuple[str, ...]:
    """The classes of a data set's config, which is not built.

    Raises:
        FedSegError: It does not say.
    """
    plain = plain_dataset(dataset)
    cls = registered(mmseg.registry.DATASETS, plain.get('type'))
    found = dict(plain.get('metainfo') or {}).get('classes') or getattr(cls, 'METAINFO', {}).get('classes')
    if not found:
        raise FedSegError('train_dataloader.dataset has no class names: set train_dataloader.dataset.metainfo='
                          "dict(classes=('road', ...)), which all sites then share")
    return tuple(found)


def check_received(sections: Mapping) -> None:
    """Refuse a config that would read files, run code or reach a network.

    Names must be those of classes that are registered here, and no text may
    be a path or an address.

    Raises:
        FedSegError: Names what is refused.
    """
    if unknown := set(sections) - set(SECTIONS):
        raise FedSegError(f'the server sends `{sorted(unknown)[0]}`, which a site takes from nobody')
    known = _known_names()
    for place, key, value in _walk(sections):
        if key in LEFT_OUT or key in ('custom_imports', 'imports'):
            raise FedSegError(f'the server sends {place}, which a site takes from nobody')
        if key in ('type', 'constructor') and not _is_registered(value, known):
            raise FedSegError(f'the server sends {place}={value!r:.80}, which is not a registered class here; one of '
                              "the site's own is registered by the modules of `imports` in site.yaml")
        if isinstance(value, str) and _FILE.search(value) and not place.startswith('classes'):
            raise FedSegError(f'the server sends {place}={value!r:.80}, which may be a file or an address: a site '
                              'takes neither from anybody')


def _is_registered(value, known: set[str]) -> bool:
    """Whether a config's ``type`` is a registered name: MMEngine would import any other with a dot in it."""
    if not isinstance(value, str):
        return False
    scope, _, name = value.rpartition('.')
    return name in known and scope in ('', 'mmengine', 'mmseg')


def _known_names() -> set[str]:
    names: set[str] = set()
    for module in (mmengine.registry, mmseg.registry, fedseg_mm.registry):
        for value in vars(module).values():
            if isinstance(value, Registry):
                names.update(value.module_dict)
                if value.parent is not None:
                    names.update(value.parent.module_dict)
    return names


def _walk(value, place: str = '') -> Iterator[tuple[str, str, Any]]:
    """Every text and key of a config: where it is, its key, and itself."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            here = f'{place}.{key}' if place else str(key)
            yield here, key, one if not isinstance(one, (Mapping, list, tuple)) else None
            yield from _walk(one, here)
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            if not isinstance(one, (Mapping, list, tuple)):
                yield f'{place}.{index}', '', one
            yield from _walk(one, f'{place}.{index}')
