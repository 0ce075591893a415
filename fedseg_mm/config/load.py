"""From a config's name and the command line's options to a config."""
import difflib
import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.utils import get_installed_path, is_installed

from fedseg_mm.config.check import drop_worker_options
from fedseg_mm.config.federate_plain import federate_plain
from fedseg_mm.config.formatted_once import FormattedOnceConfig
from fedseg_mm.config.replace_data import replace_data
from fedseg_mm.console import CFG_OPTIONS_HELP
from fedseg_mm.errors import Faults, FedSegError, reason

#: The option that decides how long a plain config is trained once it is federated.
ROUNDS = 'train_cfg.max_rounds'


def short_path(path: str | Path) -> str:
    """The path from the current folder or from the root, whichever is shorter."""
    return min(osp.relpath(path), str(path), key=len)


def tool(name: str) -> str:
    """The path of one of the tools, here or in the installed package."""
    return short_path(Path(get_installed_path('fedseg_mm'), '.mim', 'tools', f'{name}.py').resolve())


def find_config(name: str) -> str:
    """The file that a config's name stands for.

    Args:
        name (str): A path, or ``package::path`` for a config that an
            installed OpenMMLab package ships, e.g.
            ``fedseg_mm::fedavg/upernet_streetscenes_noniid1_ce.py``.

    Raises:
        FedSegError: There is no such file or package.
    """
    package, separator, path = name.partition('::')
    if separator:
        if not is_installed(package):
            raise FedSegError(f'the package {package} of the config {name} is not installed')
        path = osp.join(get_installed_path(package), '.mim', 'configs', path)
    else:
        path = name
    if not osp.isfile(path):
        raise FedSegError(f'there is no config file {name}')
    return path


def parse_options(texts: Sequence[str]) -> dict:
    """``KEY=VALUE`` texts as MMEngine's ``--cfg-options`` reads them.

    Raises:
        FedSegError: One of them cannot be read.
    """
    options = {}
    try:
        for text in texts:
            key, value = text.split('=', 1)
            options[key] = DictAction._parse_iterable(value)
    except (ValueError, AssertionError, RecursionError) as error:
        raise FedSegError(f'--cfg-options {" ".join(texts)} cannot be read: {CFG_OPTIONS_HELP}; a dict goes into '
                          'a config file') from error
    return options


def load_config(config: str, options: Mapping | None = None, federated: str | None = None,
                work_dir: str | None = None, data: str | None = None) -> Config:
    """A config file with what the command line adds to it.

    Args:
        config (str): The file; see :func:`find_config`.
        options (Mapping, optional): ``--cfg-options``.
        federated (str, optional): ``--federated``, the file that federates a
            plain config.
        work_dir (str, optional): ``--work-dir``. Defaults to that of the
            config, or else to ``work_dirs/CONFIG_NAME``.
        data (str, optional): ``--data``, the file whose data replace those of
            the config.

    Raises:
        FedSegError: The file is missing or no config, or the options do not
            fit it.
    """
    cfg: Config = FormattedOnceConfig.of(_read(config))
    _drop_own_scope(cfg._cfg_dict)
    if data:
        data_cfg = _read(data)
        _drop_own_scope(data_cfg._cfg_dict)
        replace_data(cfg, data_cfg)
    if federated:
        federated_cfg = _read(federated)
        rounds = (options or {}).get(ROUNDS)
        if isinstance(rounds, int) and rounds > 0 and 'train_cfg' in federated_cfg:
            federated_cfg.train_cfg.max_rounds = rounds  # schedules and intervals are scaled to it
        federate_plain(cfg, federated_cfg)
    for option in options or {}:
        key = option.split('.')[0]
        near = difflib.get_close_matches(key, cfg, n=1, cutoff=0.8)
        if key not in cfg and near:
            raise FedSegError(f'--cfg-options {option}: the config has no `{key}`, did you mean `{near[0]}`?')
    try:
        cfg.merge_from_dict(dict(options or {}))
    except Exception as error:  # the config's own files were read well
        texts = ' '.join(f'{key}={value}' for key, value in (options or {}).items())
        raise FedSegError(f'--cfg-options {texts} do not fit the config {config}: {error}') from error
    _check_shapes(cfg)
    drop_worker_options(cfg)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        parts = [part for part in (config, data, federated) if part]
        cfg.work_dir = osp.join('work_dirs', '-'.join(osp.splitext(osp.basename(part))[0] for part in parts))
    return cfg


def _read(name: str) -> Config:
    path = find_config(name)
    try:
        return Config.fromfile(path)
    except ImportError as error:
        cause: BaseException = error
        while str(cause).startswith('Failed to import') and (before := cause.__cause__ or cause.__context__):
            cause = before  # MMEngine's own errors name the module alone
        how = (': install it or, for a file of your own, name its folder in PYTHONPATH, as in PYTHONPATH=. python '
               'tools/fed_train.py CONFIG') if isinstance(cause, ModuleNotFoundError) else ''
        raise FedSegError(f'the imports of the config {name} fail: {reason(cause)}{how}') from error
    except Exception as error:  # a config is code and may raise anything; the file must be named
        raise FedSegError(f'the config {name} cannot be read: {type(error).__name__}: {error}') from error


def _check_shapes(cfg: Config) -> None:
    """Refuse sections that are not dicts, and hooks that are not a list of dicts."""
    faults = Faults()
    for name in ('env_cfg', 'default_hooks', 'randomness', 'log_processor', 'visualizer'):
        if not isinstance(cfg.get(name), (dict, type(None))):
            faults.add(f'{name} must be a dict, but is {cfg.get(name)!r}')
    hooks = cfg.get('custom_hooks') or []
    if not isinstance(hooks, (list, tuple)) or not all(isinstance(hook, dict) for hook in hooks):
        faults.add(f'custom_hooks must be a list of dicts, but is {hooks!r}')
    faults.report()


def _drop_own_scope(value) -> None:
    """MMEngine marks what is inherited from `fedseg_mm::` so, but all of ours is registered in mmseg's scope."""
    if isinstance(value, dict):
        if value.get('_scope_') == 'fedseg_mm':
            del value['_scope_']
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            _drop_own_scope(item)
