"""Checks of the data that a config names: its folders, files and classes."""
import logging
import os
import os.path as osp
from collections.abc import Mapping

from mmengine.config import Config
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from fedseg_mm.config.sections import LOADERS, evaluator_dicts, plain_datasets_of
from fedseg_mm.errors import Faults, FedSegError
from fedseg_mm.registry import registered, type_name

#: Where configs/_base_/datasets look for public data sets, and the environment variables that name another folder.
DATA_VARIABLES = {
    'data/cityscapes': 'FEDSEG_CITYSCAPES', 'data/camvid': 'FEDSEG_CAMVID',
    'data/VOCdevkit/VOC2012': 'FEDSEG_VOC', 'data/ade/ADEChallengeData2016': 'FEDSEG_ADE20K'
}


def check_data_folders(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Refuse a config whose data folders do not exist.

    Args:
        cfg (Config): The whole config.
        loaders (tuple[str]): Its dataloaders to check.

    Raises:
        FedSegError: A folder or annotation file is missing; names it and the
            config's key.
    """
    faults = Faults()
    missing: dict[str, list[str]] = {}
    for loader in loaders:
        if cfg.get(loader):
            evaluators = cfg.get(loader.replace('dataloader', 'evaluator'))
            labelled = not (evaluators and all(one.get('format_only') for one in evaluator_dicts(evaluators)))
            for key, dataset in plain_datasets_of(cfg[loader].get('dataset', {}), f'{loader}.dataset'):
                root = dataset.get('data_root') or ''
                if '://' in root:
                    continue  # a remote file backend
                if root and not osp.isdir(root):
                    missing.setdefault(root, []).append(f'{key}.data_root')
                    continue
                with faults:
                    _check_dataset(dataset, key, labelled)
    for root, keys in missing.items():
        faults.add(f'the data folder {root} does not exist: put or link the data set there, {_other_folder(root)}'
                   f'or set {" and ".join(keys)}')
    faults.report()


def _other_folder(root: str) -> str:
    """The environment variable that may name another folder, if there is one."""
    for folder, variable in DATA_VARIABLES.items():
        if root in (folder, os.environ.get(variable)):
            return f'name its folder in the environment variable {variable}, '
    return ''


def _warn_of_other_images(dataset, key: str, found: int) -> None:
    """Images that a folder holds but the data set does not, because their names end in another way."""
    folder, suffix = dataset.data_prefix.get('img_path'), getattr(dataset, 'img_suffix', None)
    if dataset.ann_file or not suffix or not folder or not osp.isdir(folder):
        return
    kinds = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff')
    others = [name for _, _, names in os.walk(folder) for name in names
              if name.lower().endswith(kinds) and not name.endswith(suffix)]
    if others:
        example = others[0].encode(errors='backslashreplace').decode()
        print_log(f'{key} takes {found} images of {folder} and leaves out {len(others)} whose names do not end in '
                  f'img_suffix={suffix!r}, such as {example}.', 'current', level=logging.WARNING)


def _check_dataset(dataset: dict, key: str, labelled: bool) -> None:
    root = dataset.get('data_root') or ''
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        folder = osp.join(root, prefix) if isinstance(prefix, str) and (labelled or name == 'img_path') else ''
        if folder and not osp.isdir(folder):
            raise FedSegError(f'the data folder {folder} does not exist ({key}.data_prefix.{name})')
    ann_file = dataset.get('ann_file')
    if ann_file and not osp.exists(osp.join(root, ann_file)):
        raise FedSegError(f'the file {osp.join(root, ann_file)} does not exist ({key}.ann_file)')
    if dataset.get('data_prefix'):
        try:
            built = DATASETS.build({**dataset, 'lazy_init': True, 'pipeline': []})
            files = built.load_data_list()
        except (TypeError, ValueError):
            return  # a data set of the user's own that cannot be listed before it is built, or wrong class names
        if not files:
            folder = osp.join(root, dataset['data_prefix'].get('img_path', ''))
            raise FedSegError(f'{key} finds no image ending in {getattr(built, "img_suffix", "")} in {folder}: check '
                              'its data_prefix, and its img_suffix, which must end the names of the images')
        _warn_of_other_images(built, key, len(files))


def class_names(dataset: dict, key: str) -> tuple[str, ...] | None:
    """The names of a data set's classes, as its config or its type says them.

    Args:
        dataset (dict): A data set's config.
        key (str): Its key in the whole config, for messages.

    Returns:
        tuple[str], optional: None where only the data set itself knows.

    Raises:
        FedSegError: They cannot be names, or do not fit the type.
    """
    cls = registered(DATASETS, dataset.get('type'))
    known: Mapping = getattr(cls, 'METAINFO', None) or {}
    metainfo = dataset.get('metainfo') or {}
    if not isinstance(metainfo, Mapping):
        raise FedSegError(f"{key}.metainfo must be a dict such as dict(classes=('road', ...)), but is {metainfo!r}")
    for name in ('CLASSES', 'PALETTE'):
        if name in metainfo:
            raise FedSegError(f'{key}.metainfo has the key `{name}`, which MMSegmentation 1 does not read: write '
                              f'`{name.lower()}`')
    classes = metainfo.get('classes', known.get('classes'))
    if isinstance(classes, str):
        if not osp.isfile(classes):
            raise FedSegError(f'{key}.metainfo.classes is the string {classes!r}, of which every letter would be a '
                              f'class (it is not a file of names either): write classes=({classes!r}, ), with a comma')
        with open(classes, encoding='utf-8') as file:
            classes = [line.rstrip('\n\r') for line in file]
    if classes is None:
        return None
    if not isinstance(classes, (list, tuple)) or not classes or not all(isinstance(one, str) for one in classes):
        raise FedSegError(f'{key}.metainfo.classes must be a list of names, but is {classes!r}')
    if len(set(classes)) < len(classes):
        raise FedSegError(f'{key}.metainfo.classes names {max(classes, key=list(classes).count)} twice: give every '
                          'class a name of its own')
    own = known.get('classes')
    if own is not None and (others := [one for one in classes if one not in own]):
        raise FedSegError(f'{key}.metainfo.classes names {", ".join(others[:5])}, but {type_name(cls)} has no such '
                          f'class: its classes are {", ".join(own[:20])}{", …" if len(own) > 20 else ""}')
    palette = metainfo.get('palette', known.get('palette'))
    is_subset = own is not None and list(own) != list(classes) and len(palette or ()) == len(own)
    if palette and len(palette) != len(classes) and not is_subset:
        raise FedSegError(f'{key}.metainfo.palette has {len(palette)} colours for {len(classes)} classes: give one '
                          'colour for each class, or leave the palette out')
    return tuple(classes)


def check_classes(cfg: Config) -> None:
    """Refuse class names that are not names, and those that differ between data sets."""
    faults = Faults()
    first: tuple[str, tuple[str, ...]] | None = None
    for loader in LOADERS:
        for key, dataset in plain_datasets_of((cfg.get(loader) or {}).get('dataset') or {}, f'{loader}.dataset'):
            classes = None
            with faults:
                classes = class_names(dataset, key) if dataset else None
                # the test set is not used in a training
                if classes is None and loader != 'test_dataloader' and (
                        registered(DATASETS, dataset.get('type')) is BaseSegDataset):
                    faults.add(f"{key} has no class names: set {key}.metainfo=dict(classes=('road', ...)), and the "
                               'same for the other loaders')
            if classes is None:
                continue
            if first is None:
                first = key, classes
            elif classes != first[1]:
                faults.add(_difference(key, classes, *first))
    faults.report()


def _difference(key: str, classes: tuple[str, ...], other: str, expected: tuple[str, ...]) -> str:
    """How the classes of one data set differ from those of another."""
    lacks = [one for one in expected if one not in classes]
    more = [one for one in classes if one not in expected]
    words = [f'it lacks {", ".join(lacks[:5])}{", …" if lacks[5:] else ""}'] if lacks else []
    words += [f'it adds {", ".join(more[:5])}{", …" if more[5:] else ""}'] if more else []
    how = ' and '.join(words) or 'it has them in another order'
    return f'{key} has different classes from {other}: {how}; give all data sets the same metainfo.classes'


