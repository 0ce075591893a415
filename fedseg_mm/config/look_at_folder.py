"""What a folder of images and masks holds, and the config that trains on it."""
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fedseg_mm.datasets.labels import NO_IMAGE, VOID
from fedseg_mm.errors import Faults, FedSegError
from fedseg_mm.starter_models import MODELS
from fedseg_mm.validation import check_positive

IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'img_dir', 'JPEGImages', 'photos')
MASK_FOLDERS = ('masks', 'mask', 'labels', 'label', 'annotations', 'ann_dir', 'SegmentationClass')
TRAIN, VAL = ('train', 'training'), ('val', 'valid', 'validation', 'test', 'testing')
KINDS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
#: Most masks that are read; the check before training reads all.
MOST_MASKS = 500
#: One image in so many is kept for evaluation where the folder has no split of its own.
EVERY = 5


@dataclass(frozen=True)
class ImageFolder:
    """Images and masks that belong together.

    Args:
        root (Path): The folder that holds both.
        images (str): The folder of images, below ``root``.
        masks (str): That of masks.
        train (str): The subfolder for training, '' where there is none.
        val (str): That for evaluation.
        img_suffix (str): What the names of images end in.
        seg_map_suffix (str): What those of their masks end in instead.
        names (tuple[str]): Names of the images for training, without suffix.
        shares (dict[int, float]): Label value -> its share of the pixels.
        sizes (tuple[int, int, int, int]): Least and greatest width, least and
            greatest height.
    """
    root: Path
    images: str
    masks: str
    train: str
    val: str
    img_suffix: str
    seg_map_suffix: str
    names: tuple[str, ...]
    shares: dict[int, float]
    sizes: tuple[int, int, int, int]


def look_at_folder(root: Path) -> ImageFolder:
    """Find out how a folder is laid out and what its masks hold.

    Raises:
        FedSegError: It is not laid out so that images and their masks can be
            found, or its masks are none; says what was looked for.
    """
    if not root.is_dir():
        raise FedSegError(f'there is no folder {root}')
    images, masks = _one_of(root, IMAGE_FOLDERS, 'images'), _one_of(root, MASK_FOLDERS, 'masks')
    train, val = _split(root / images, TRAIN), _split(root / images, VAL)
    if bool(train) != bool(val):
        raise FedSegError(f'{root / images} has only the subfolder {train or val}: name those for training and '
                          'evaluation train and val, or put all images into one folder')
    found = _files(root / images / train)
    if not found:
        raise FedSegError(f'there is no image in {root / images / train} (looked for {", ".join(KINDS)})')
    suffix = Counter(Path(name).suffix for name in found).most_common(1)[0][0]
    names = sorted(name.removesuffix(suffix) for name in found if name.endswith(suffix))
    mask_suffix = _mask_suffix(names, _files(root / masks / train), root / masks / train)
    shares, sizes = _look_into(
        [(root / images / train / f'{name}{suffix}', root / masks / train / f'{name}{mask_suffix}') for name in names])
    return ImageFolder(root, images, masks, train, val, suffix, mask_suffix, tuple(names), shares, sizes)


def _one_of(root: Path, names: Sequence[str], what: str) -> str:
    found = [name for name in names if (root / name).is_dir()]
    if len(found) != 1:
        raise FedSegError(f'{root} has {"none" if not found else "several"} of the folders {", ".join(names)}'
                          f'{"" if not found else " (" + ", ".join(found) + ")"}: put the {what} into {names[0]}')
    return found[0]


def _split(folder: Path, names: Sequence[str]) -> str:
    return next((name for name in names if (folder / name).is_dir()), '')


def _files(folder: Path) -> list[str]:
    """Images of a folder and those below it, as names from there."""
    return [Path(path, name).relative_to(folder).as_posix() for path, _, names in os.walk(folder) for name in names
            if name.lower().endswith(KINDS)]


def _mask_suffix(names: Sequence[str], masks: Sequence[str], folder: Path) -> str:
    """What masks are called after the name of their image, such as ``.png`` or ``_mask.png``."""
    known = set(names)
    endings = Counter(mask[length:] for mask in masks for length in range(1, len(mask)) if mask[:length] in known)
    if not endings:
        raise FedSegError(f'no mask in {folder} begins with the name of an image, as {names[0]}.png would: name masks '
                          'after their images')
    suffix = max(endings, key=lambda ending: (endings[ending], -len(ending)))
    have = {mask.removesuffix(suffix) for mask in masks if mask.endswith(suffix)}
    lacking = [name for name in names if name not in have]
    if lacking:
        raise FedSegError(f'{len(lacking)} of {len(names)} images have no mask, such as {lacking[0]}: there is no '
                          f'{folder / (lacking[0] + suffix)}')
    return suffix


def _look_into(pairs: Sequence[tuple[Path, Path]]) -> tuple[dict[int, float], tuple[int, int, int, int]]:
    counts = np.zeros(256, np.int64)
    sizes = []
    faults = Faults()
    step = max(1, -(-len(pairs) // MOST_MASKS))
    for image, mask in pairs[::step]:
        with faults:
            try:
                with Image.open(image) as file:
                    sizes.append(file.size)
                with Image.open(mask) as file:
                    label = np.asarray(file)
            except NO_IMAGE as error:
                raise FedSegError(f'{image} or its mask {mask.name} cannot be read: {error}') from error
            if label.ndim != 2:
                raise FedSegError(f'the mask {mask} has {label.shape[-1]} channels, but must hold one class index per '
                                  'pixel: painted colours must be turned into indices')
            if label.dtype == bool:
                label = label.astype(np.uint8)
            if label.max() > 255:
                raise FedSegError(f'the mask {mask} holds the value {label.max()}: values must be at most 255')
            counts += np.bincount(label.ravel(), minlength=256)
        if len(faults.sentences) >= 10:
            break
    faults.report()
    shares = {int(value): float(counts[value] / counts.sum()) for value in np.flatnonzero(counts)}
    labels = [value for value in shares if value != VOID]
    if len(labels) < 2:
        raise FedSegError(f'the masks hold only {" and ".join(map(str, shares))}: there is nothing to tell apart. 255 '
                          'means void, which is not trained: write 1, 2, … for classes, and 0 for the first or for '
                          'the background')
    widths, heights = zip(*sizes)
    return shares, (min(widths), max(widths), min(heights), max(heights))


def config_for(folder: ImageFolder, classes: Sequence[str] | None, clients: int | None, model: str, lists: Path) -> str:
    """The text of a config that trains on a folder.

    Args:
        folder (ImageFolder): What was found.
        classes (Sequence[str], optional): Names of the classes, in the order
            of their label values. None: they are numbered.
        clients (int, optional): Clients to simulate. None: ten, or one for
            each class if that is more.
        model (str): One of ``MODELS``.
        lists (Path): Where the lists of images are, if the folder has no
            split of its own.

    Raises:
        FedSegError: There are too few names, or more clients than images.
    """
    number = max(value for value in folder.shares if value != VOID) + 1
    if classes is not None and len(classes) != number:
        raise FedSegError(f'--classes names {len(classes)}, but the masks hold values up to {number - 1}: name '
                          f'{number}')
    training = len(folder.names) if folder.train else len(folder.names) - len(evaluated(folder))
    shown = sum(value != VOID for value in folder.shares)
    if clients is None:
        clients = min(training, max(10, shown))
    check_positive('--clients', clients)
    if clients > training:
        raise FedSegError(f'--clients {clients} is more than the {training} images for training')
    names = list(classes or (f'class_{value}' for value in range(number)))
    base, what = MODELS[model]
    rows = '\n'.join(f'    {name!r},  # label {value}, {100 * folder.shares.get(value, 0):.2f} % of the pixels'
                     for value, name in enumerate(names))
    images, masks = ([f'{part}/{split}'.rstrip('/') for split in (folder.train, folder.val)]
                     for part in (folder.images, folder.masks))
    data = [f"    data_prefix=dict(img_path={image!r}, seg_map_path={mask!r})" for image, mask in zip(images, masks)]
    if not folder.train:
        data = [f'{line},\n    ann_file={str((lists / f"{split}.txt").resolve())!r}'
                for line, split in zip(data, ('train', 'val'))]
    heads = 'decode_head=dict(num_classes=len(classes))'
    if model == 'deeplabv3':
        heads += ', auxiliary_head=dict(num_classes=len(classes))'
    void = f', {100 * folder.shares[VOID]:.2f} % of the pixels' if VOID in folder.shares else ', of which there is none'
    return f"""\
# {folder.root}: {len(folder.names)} images {'for training' if folder.train else 'in all'}, {_size(folder.sizes)}.
# Train with:  python tools/fed_train.py THIS_FILE
_base_ = {base!r}  # {what}; others: {', '.join(other for other, _ in MODELS.values() if other != base)}
classes = (  # in the order of the label values; 255 is void{void}
{rows}
)
folder = dict(
    data_root={str(folder.root.resolve())!r}, metainfo=dict(classes=classes), img_suffix={folder.img_suffix!r},
    seg_map_suffix={folder.seg_map_suffix!r})
train_dataloader = dict(dataset=dict(
    **folder,
{data[0]}))
val_dataloader = dict(dataset=dict(
    **folder,
{data[1]}))
test_dataloader = val_dataloader
model = dict({heads})
# clients are simulated here, and each annotates some of the classes; real clients are listed in a file:
# partitioner='clients.yaml', see docs/clients.md
federated = dict(
    partitioner=dict(num_clients={clients}, classes_per_client={-(-shown // clients)}),
    clients_per_round={min(5, clients)})
"""


def evaluated(folder: ImageFolder) -> list[str]:
    """The images that are kept for evaluation where the folder has no split of its own: every fifth."""
    return list(folder.names[EVERY - 1::EVERY])


def _size(sizes: tuple[int, int, int, int]) -> str:
    width, most_width, height, most_height = sizes
    if (width, height) == (most_width, most_height):
        return f'{width}x{height} pixels'
    return f'{width} to {most_width} pixels wide and {height} to {most_height} high'
