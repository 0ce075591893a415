"""Registries of what a federated config builds, and a builder that explains mistakes."""
import difflib
import inspect

from mmengine.registry import Registry

from fedseg_mm.errors import Faults, FedSegError
from fedseg_mm.validation import check_keys

#: Federated methods: both halves, client side and server side.
ALGORITHMS = Registry('algorithm', scope='mmseg', locations=['fedseg_mm.algorithms'])
#: How the updates of a cohort become one.
AGGREGATORS = Registry('aggregator', scope='mmseg', locations=['fedseg_mm.aggregators'])
#: Who takes part in a round.
CLIENT_SAMPLERS = Registry('client sampler', scope='mmseg', locations=['fedseg_mm.samplers'])
#: What becomes of batch normalisation.
BATCH_NORM_POLICIES = Registry('batch-norm policy', scope='mmseg', locations=['fedseg_mm.algorithms'])
#: Where clients train.
BACKENDS = Registry('backend', scope='mmseg', locations=['fedseg_mm.engine.backends'])
#: What is done to an update before it leaves its client, or to the combined update.
UPDATE_PROCESSORS = Registry('update processor', scope='mmseg', locations=['fedseg_mm.processors'])
#: What hostile clients do, where a defence is measured.
ATTACKS = Registry('attack', scope='mmseg', locations=['fedseg_mm.attacks'])
#: Who holds which images and which classes they annotate.
PARTITIONERS = Registry('partitioner', scope='mmseg', locations=['fedseg_mm.datasets'])


def type_name(value) -> str:
    """What a config's ``type`` is called, whether it is a name or, in a pure-Python config, the class itself."""
    return getattr(value, '__name__', None) or str(value).rsplit('.', 1)[-1]


def registered(registry: Registry, value, where: str | None = None):
    """What a config's ``type`` stands for: the registered class of a name, or the class itself.

    Args:
        registry (Registry): Where names are looked up.
        value (str or type): The config's ``type``.
        where (str, optional): The config's key. Defaults to None: a name that
            nobody registered stands for None.

    Raises:
        FedSegError: With ``where``: nobody registered the name.
    """
    if not isinstance(value, str):
        return value
    found = registry.get(value)
    if found is None and where is not None:
        known = {name.lower(): name for name in (*registry.module_dict, *getattr(registry.parent, 'module_dict', ()))}
        near = difflib.get_close_matches(value.lower(), known, n=1, cutoff=0.6)
        hint = f': did you mean `{known[near[0]]}`?' if near else ''
        raise FedSegError(f'unknown type `{value}` in {where}{hint}')
    return found


def constructor_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters; where it passes ``**kwargs`` on, those of the base class too."""
    parameters: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if '__init__' not in vars(base):
            continue
        own = inspect.signature(base).parameters
        parameters = {**{name: p for name, p in own.items() if p.kind is not p.VAR_KEYWORD}, **parameters}
        if base is object or not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            return parameters
    return parameters


def check_arguments(cls: type, arguments: dict, where: str) -> None:
    """Refuse arguments that ``cls`` does not take or lacks.

    Raises:
        FedSegError: An argument is unknown or a required one is missing.
    """
    arguments = {key: value for key, value in arguments.items() if key not in ('type', '_scope_')}
    parameters = constructor_parameters(cls)
    faults = Faults()
    with faults:
        check_keys(arguments, parameters, where)
    for name, p in parameters.items():
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and name not in arguments:
            faults.add(f'{where} needs `{name}`, which is not given')
    faults.report()


def build(registry: Registry, cfg: dict, where: str):
    """Build ``cfg`` and report a wrong type or key in one sentence.

    Args:
        registry (Registry): Where ``cfg['type']`` is registered.
        cfg (dict): A config with a ``type``.
        where (str): The config's key, for the message.

    Raises:
        FedSegError: The type or one of the keys is unknown.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise FedSegError(f'{where} must be a dict with a `type`, but is {cfg!r}')
    cls = registry.get(cfg['type']) if isinstance(cfg['type'], str) else cfg['type']
    if not isinstance(cls, type):
        near = difflib.get_close_matches(str(cfg['type']), registry.module_dict, n=1, cutoff=0.4)
        hint = f'did you mean `{near[0]}`?' if near else f'known types are {", ".join(sorted(registry.module_dict))}'
        raise FedSegError(f'unknown type `{cfg["type"]}` in {where}: {hint}')
    check_arguments(cls, cfg, where)
    return registry.build(cfg)
