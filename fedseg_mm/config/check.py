"""What is looked at in a config before anything is built of it."""
import logging
import os
import os.path as osp

from mmengine.config import Config
from mmengine.logging import print_log
from mmseg.registry import DATASETS

from fedseg_mm.errors import FedSegError


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


def warn_of_iterations(cfg: Config) -> None:
    """Say so where a setting was meant for iterations, which there are fewer of: one per round."""
    rounds = cfg.train_cfg.max_rounds
    for i, schedule in enumerate(cfg.get('param_scheduler') or []):
        if isinstance(schedule, dict) and isinstance(end := schedule.get('end'), int) and end > rounds:
            print_log(f'param_scheduler.{i}.end={end} is beyond max_rounds={rounds}: schedules count rounds.',
                      'current', level=logging.WARNING)
    interval = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('interval', -1)
    if interval > rounds:
        print_log(f'default_hooks.checkpoint.interval={interval} is beyond max_rounds={rounds}: only the last round '
                  'is saved.', 'current', level=logging.WARNING)


def check_seed(cfg: Config) -> None:
    """Refuse a seed that numpy refuses.

    Raises:
        FedSegError: It is no integer of 32 bits.
    """
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32):
        raise FedSegError(f'randomness.seed must be an integer from 0 to {2**32 - 1}, but is {seed!r}')
