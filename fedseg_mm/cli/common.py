"""What the command line tools share: configs, checks, one-sentence errors."""
import argparse
import difflib
import logging
import os
import os.path as osp
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import barrier
from mmengine.logging import print_log
from mmengine.utils import get_installed_path, is_installed
from mmseg.registry import DATASETS

from fedseg_mm.cli.federate import federate_plain
from fedseg_mm.cli.parser import as_called
from fedseg_mm.errors import FedSegError
from fedseg_mm.federation import Federation
from fedseg_mm.registry import check_arguments

CFG_OPTIONS_HELP = ('override settings of the config, as key=value pairs; nested keys are joined by dots, lists are '
                    'written key="[a,b]" or key=a,b')


class CfgOptions(DictAction):
    """MMEngine's parser of ``--cfg-options``, which fails on dicts with a traceback."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError, RecursionError):
            parser.error(f'--cfg-options {" ".join(values)} cannot be read: {CFG_OPTIONS_HELP}; what needs a dict '
                         'goes into a config file')


@contextmanager
def one_sentence_errors(tool: str) -> Iterator[None]:
    """Print what the user can mend as one sentence, and exit with 1."""
    try:
        yield
    except FedSegError as error:
        sys.exit(f'{tool}: {error}')
    except AssertionError as error:
        if 'is not in the pretrained model' not in str(error):
            raise
        sys.exit(f'{tool}: {error}: check the `prefix` of the init_cfg')
    except KeyError as error:
        if 'is not in the' not in str(error):
            raise
        sys.exit(f'{tool}: {str(error.args[0]).split(". ")[0]}')  # MMEngine's word for an unknown type
    except KeyboardInterrupt:
        print(f'\n{tool}: stopped; a training goes on from its last checkpoint with --resume', file=sys.stderr)
        sys.exit(130)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """MMSegmentation's arguments that training and testing share."""
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help=CFG_OPTIONS_HELP)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how processes were launched (default: none, one process)')
    # torch.distributed.launch passes it
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def refuse_initial_model(checkpoint: dict, path: str) -> None:
    """Refuse what LocalOnly saves: a model that nobody has trained.

    Raises:
        FedSegError: It is such a checkpoint.
    """
    if (checkpoint.get('federated') or {}).get('type') == 'LocalOnly':
        raise FedSegError(f'the checkpoint {path} of LocalOnly holds the initial model, because every client has a '
                          "model of its own: the clients' figures are in vis_data/clients.json of the training")


def add_federated_argument(parser: argparse.ArgumentParser) -> None:
    """The argument that federates a plain config."""
    parser.add_argument('--federated', metavar='FILE',
                        help='federate a plain MMSegmentation config: a config file with `federated`, `train_cfg` and, '
                        'if cross-entropy is to be replaced, `head_loss`, e.g. '
                        'configs/_base_/federated/fedseg_noniid1.py; what it changes is said in the log')


def tool(name: str) -> str:
    """The path of one of the tools, here or in the installed package."""
    return short_path(Path(get_installed_path('fedseg_mm'), '.mim', 'tools', f'{name}.py').resolve())


def short_path(path: str | Path) -> str:
    """The path from the current folder or from the root, whichever is shorter."""
    return min(osp.relpath(path), str(path), key=len)


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


def load_config(args: argparse.Namespace) -> Config:
    """The config file with ``--cfg-options``, ``--launcher`` and ``--work-dir`` applied.

    Raises:
        FedSegError: The file is missing or no config.
    """
    path = find_config(args.config)
    try:
        cfg = Config.fromfile(path)
        _drop_own_scope(cfg._cfg_dict)
        if getattr(args, 'federated', None):
            federate_plain(cfg, Config.fromfile(find_config(args.federated)))
        for option in args.cfg_options or {}:
            key = option.split('.')[0]
            near = difflib.get_close_matches(key, cfg, n=1, cutoff=0.8)
            if key not in cfg and near:
                raise FedSegError(f'--cfg-options {option}: the config has no `{key}`, did you mean `{near[0]}`?')
        try:
            cfg.merge_from_dict(args.cfg_options or {})
        except Exception as error:  # the config's own files were read well
            options = ' '.join(f'{key}={value}' for key, value in args.cfg_options.items())
            raise FedSegError(f'--cfg-options {options} do not fit the config {args.config}: {error}') from error
    except FedSegError:
        raise
    except Exception as error:  # a config is code and may raise anything; the file must be named
        raise FedSegError(f'the config {args.config} cannot be read: {type(error).__name__}: {error}') from error
    if hasattr(args, 'launcher'):
        cfg.launcher = args.launcher
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        parts = [args.config] + ([args.federated] if getattr(args, 'federated', None) else [])
        cfg.work_dir = osp.join('work_dirs', '-'.join(osp.splitext(osp.basename(part))[0] for part in parts))
    return cfg


@contextmanager
def joined_processes(cfg: Config) -> Iterator[None]:
    """A run of several processes, each of which trains whole clients; changes ``cfg`` in place.

    Raises:
        FedSegError: The launcher's processes cannot be joined here.
    """
    if cfg.get('launcher', 'none') == 'none':
        yield
        return
    cfg.model_wrapper_cfg = dict(type='ClientParallel')
    devices = torch.cuda.device_count()
    if devices == 0:
        if cfg.launcher != 'pytorch':
            raise FedSegError(f'--launcher {cfg.launcher} needs GPUs, and there are none: use --launcher pytorch')
        if 'RANK' not in os.environ:
            command = as_called('torchrun --nproc_per_node=2 tools/fed_train.py CONFIG --launcher pytorch')
            raise FedSegError(f'--launcher pytorch is for processes started by torchrun: {command}')
        # MMEngine would ask for a GPU; it takes the processes as they are if they are joined already
        torch.distributed.init_process_group('gloo')
    elif int(os.environ.get('LOCAL_WORLD_SIZE', 1)) > devices:
        os.environ['LOCAL_RANK'] = str(int(os.environ['LOCAL_RANK']) % devices)
        # nccl takes one process per GPU
        cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})['backend'] = 'gloo'
    try:
        yield
        barrier()  # the first process may still be writing
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _drop_own_scope(value) -> None:
    """MMEngine marks what is inherited from `fedseg_mm::` so, but all of ours is registered in mmseg's scope."""
    if isinstance(value, dict):
        if value.get('_scope_') == 'fedseg_mm':
            del value['_scope_']
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            _drop_own_scope(item)


def federated_section(cfg: Config) -> dict:
    """The config's ``federated``, or the FederatedHook that it lists instead.

    Raises:
        FedSegError: There is none, or it holds an unknown key.
    """
    federated = cfg.get('federated')
    listed = [hook for hook in cfg.get('custom_hooks') or [] if hook.get('type') == 'FederatedHook']
    if federated is None and listed:
        federated = {key: value for key, value in listed[0].items() if key != 'type'}
    if federated is None:
        raise FedSegError(f'{cfg.filename} has no `federated = dict(...)`: inherit one from '
                          f'{as_called("configs/_base_/federated/")}, or write your own')
    if not isinstance(federated, dict):
        raise FedSegError(f'federated must be a dict, but is {federated!r}')
    check_arguments(Federation, federated, 'federated')
    return federated


def check_data_folders(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Refuse a config whose data folders do not exist.

    Args:
        cfg (Config): The whole config.
        loaders (tuple[str]): Its dataloaders to check.

    Raises:
        FedSegError: A folder or annotation file is missing; names it and the
            config's key.
    """
    for loader in loaders:
        if cfg.get(loader):
            _check_dataset(cfg[loader].get('dataset', {}), f'{loader}.dataset')


def _warn_of_other_images(dataset, key: str, found: int) -> None:
    """Images that a folder holds but the data set does not, because their names end in another way."""
    folder, suffix = dataset.data_prefix.get('img_path'), getattr(dataset, 'img_suffix', None)
    if dataset.ann_file or not suffix or not folder or not osp.isdir(folder):
        return
    kinds = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff')
    others = [name for _, _, names in os.walk(folder) for name in names
              if name.lower().endswith(kinds) and not name.endswith(suffix)]
    if others:
        print_log(f'{key} takes {found} images of {folder} and leaves out {len(others)} whose names do not end in '
                  f'img_suffix={suffix!r}, such as {others[0]}.', 'current', level=logging.WARNING)


def _check_dataset(dataset: dict, key: str) -> None:
    for i, part in enumerate(dataset.get('datasets', [])):
        _check_dataset(part, f'{key}.datasets.{i}')
    if isinstance(dataset.get('dataset'), dict):
        _check_dataset(dataset['dataset'], f'{key}.dataset')
    root = dataset.get('data_root') or ''
    if '://' in root:
        return  # a remote file backend
    if root and not osp.isdir(root):
        raise FedSegError(f'the data folder {root} does not exist: put or link the data set there, name the folder in '
                          'the environment variable that README.md gives for it, or set '
                          f'{key}.data_root')
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        folder = osp.join(root, prefix) if isinstance(prefix, str) else ''
        if folder and not osp.isdir(folder):
            raise FedSegError(f'the data folder {folder} does not exist ({key}.data_prefix.{name})')
    ann_file = dataset.get('ann_file')
    if ann_file and not osp.exists(osp.join(root, ann_file)):
        raise FedSegError(f'the file {osp.join(root, ann_file)} does not exist ({key}.ann_file)')
    if dataset.get('data_prefix'):
        try:
            built = DATASETS.build({**dataset, 'lazy_init': True, 'pipeline': []})
            files = built.load_data_list()
        except TypeError:
            return  # a data set of the user's own that cannot be listed before it is built
        if not files:
            folder = osp.join(root, dataset['data_prefix'].get('img_path', ''))
            raise FedSegError(f'{key} finds no image ending in {getattr(built, "img_suffix", "")} in {folder}: check '
                              'its data_prefix, and its img_suffix, which must end the names of the images')
        _warn_of_other_images(built, key, len(files))
