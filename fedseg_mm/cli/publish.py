"""A checkpoint of a training becomes one for MMSegmentation's model zoo."""
import hashlib
import io
import shlex
from collections import OrderedDict
from pathlib import Path

import mmengine
import mmseg
import numpy as np
import torch
from torch import Tensor

from fedseg_mm import __version__
from fedseg_mm.checkpoints import load_weights_only, to_plain
from fedseg_mm.cli import arguments
from fedseg_mm.cli.common import one_sentence_errors, refuse_initial_model
from fedseg_mm.console import as_called
from fedseg_mm.errors import FedSegError
from fedseg_mm.files import atomic_write

#: What methods add to the model for training only.
TRAINING_ONLY = ('projection_head.', )


def segmentor_weights(checkpoint: dict, source: Path) -> OrderedDict[str, Tensor]:
    """The weights that the plain segmentor has, under its names.

    Each tensor is a copy: one that is a view would bring all of its storage
    into the file.

    Args:
        checkpoint (dict): A checkpoint of MMEngine.
        source (Path): Its file, for errors.

    Raises:
        FedSegError: It holds no weights by name.
    """
    if not isinstance(checkpoint.get('state_dict'), dict):
        raise FedSegError(f'{source} has no `state_dict`: name a checkpoint of a training, e.g. '
                          'work_dirs/CONFIG/round_70.pth')
    weights = OrderedDict((name.removeprefix('module.'), tensor) for name, tensor in checkpoint['state_dict'].items())
    kept = OrderedDict((name, tensor.detach().clone()) for name, tensor in weights.items()
                       if isinstance(tensor, Tensor) and not name.startswith(TRAINING_ONLY))
    if not kept:
        raise FedSegError(f'the `state_dict` of {source} holds no weights of a segmentor')
    return kept


def plain_meta(meta: dict | None) -> dict:
    """Classes, their colours and versions; the rest of a training's meta names paths, seeds and times.

    Args:
        meta (dict, optional): Of MMEngine, or of MMSegmentation before 1.0.
    """
    meta = meta or {}
    # not the training's: MMEngine adds the commit of whatever repository it ran in
    versions = dict(mmengine_version=mmengine.__version__, mmseg_version=mmseg.__version__,
                    fedseg_mm_version=__version__)
    named = meta.get('dataset_meta') or {key.lower(): meta[key] for key in ('CLASSES', 'PALETTE') if key in meta}
    named = named if isinstance(named, dict) else {}
    classes = {key: named[key] for key, are_right in (('classes', _are_names), ('palette', _are_colours))
               if named.get(key) is not None and are_right(named[key])}
    return {**versions, 'dataset_meta': classes} if classes else versions


def _are_names(value) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)


def _are_colours(value) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 2 and value.shape[1] == 3
    return isinstance(value, (list, tuple)) and all(
        isinstance(colour, (list, tuple, np.ndarray)) and len(colour) == 3 and all(
            isinstance(part, (int, np.integer)) for part in colour) for colour in value)


def target_path(source: Path, out: Path | None, digest: str) -> Path:
    """``FOLDER/STEM-HASH8.pth``; makes the folder.

    Raises:
        FedSegError: There can be no such folder.
    """
    if out is None:
        folder, stem = source.parent, source.stem
    elif out.suffix == '.pth' and not out.is_dir():
        folder, stem = out.parent, out.stem
    else:
        folder, stem = out, source.stem
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise FedSegError(f'--out {out}: {folder} cannot be a folder, because it is a file or lies in one; name a '
                          'folder, or a file ending in .pth') from None
    except OSError as error:
        raise FedSegError(f'the folder {folder} cannot be made: {error.strerror}') from error
    return folder / f'{stem}-{digest[:8]}.pth'


def write(path: Path, content: bytes) -> None:
    """Write a whole file or none; one of the same content stays as it is.

    Raises:
        FedSegError: There is another one of this name, or it cannot be written.
    """
    if path.exists():
        if not path.is_file() or path.read_bytes() != content:
            raise FedSegError(f'{path} exists with other content: move it away, or name another with --out')
        return
    try:
        with atomic_write(path) as file:
            file.write_bytes(content)
    except OSError as error:
        raise FedSegError(f'{path} cannot be written: {error.strerror}') from error


def publish(source: Path, out: Path | None = None) -> Path:
    """Write the plain checkpoint; return where it is.

    Args:
        source (Path): A checkpoint of a training.
        out (Path, optional): Folder, or file name to which the hash is added.
            Defaults to the checkpoint's.

    Raises:
        FedSegError: The checkpoint cannot be read, or the file not be written.
    """
    checkpoint = load_weights_only(str(source), map_location='cpu')
    refuse_initial_model(checkpoint, str(source))
    weights = segmentor_weights(checkpoint, source)
    published = dict(meta=plain_meta(checkpoint.get('meta')), state_dict=weights)
    to_plain(published)
    buffer = io.BytesIO()  # torch writes a path's name into the file, and the hash would depend on it
    torch.save(published, buffer)
    content = buffer.getvalue()
    path = target_path(source, out, hashlib.sha256(content).hexdigest())
    write(path, content)
    return path


def inference_command(config: str, weights: Path) -> str:
    """A command for the shell that paints a prediction with MMSegInferencer."""
    code = (f'import fedseg_mm; from mmseg.apis import MMSegInferencer; MMSegInferencer({config!r}, {str(weights)!r})'
            "('IMAGE.png', out_dir='predictions')")
    return f'python -c "{code}"' if not set('"$`\\!') & set(code) else f'python -c {shlex.quote(code)}'


def main(argv: list[str] | None = None) -> None:
    args = arguments.publish(argv)
    with one_sentence_errors('fed_publish'):
        path = publish(args.checkpoint, args.out)
        configs = list(args.checkpoint.parent.glob('*.py'))  # a training leaves its config there
        config = str(configs[0]) if len(configs) == 1 else 'CONFIG.py'
        print(f'Published:  {path} ({path.stat().st_size / 1e6:.2f} MB)\n'
              f'Predict:    {inference_command(config, path)}\n'
              f'Evaluate:   {as_called("python tools/test.py")} {shlex.quote(config)} {shlex.quote(str(path))}')
