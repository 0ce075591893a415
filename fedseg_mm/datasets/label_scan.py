"""One look at every image and label before training: class counts and defects."""
import hashlib
import io
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.logging import print_log
from PIL import ExifTags, Image, UnidentifiedImageError
from rich.progress import track
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from fedseg_mm.datasets.array_cache import cache_folder, file_state, read_array, write_array
from fedseg_mm.datasets.labels import VOID
from fedseg_mm.errors import FedSegError


class LabelCounts(NamedTuple):
    """Labelled pixels of every image.

    Args:
        classes (np.ndarray): Those of each class, int64 (images, classes).
        unannotated (np.ndarray): Those that the image's file calls
            unannotated, int64 (images,).
    """
    classes: np.ndarray
    unannotated: np.ndarray


def plain_datasets(dataset) -> list[BaseDataset]:
    """The data sets with a pipeline that ``dataset`` joins, in order.

    Raises:
        FedSegError: ``dataset`` wraps its images in a way that a client could
            not be kept apart from the others.
    """
    if isinstance(dataset, ConcatDataset):
        return [plain for part in dataset.datasets for plain in plain_datasets(part)]
    if isinstance(dataset, BaseDataset):
        return [dataset]
    raise FedSegError(f'the data set wrapper {type(dataset).__name__} cannot be federated: it mixes or repeats images '
                      'beyond the reach of a partition; use the data set itself, or ConcatDataset')


def scan_labels(dataset, num_workers: int = 0, purpose: str = 'train',
                unannotated: np.ndarray | None = None) -> LabelCounts:
    """Count the pixels of each class in each image, and find what cannot be trained on.

    Labels pass through the data set's own loading (``reduce_zero_label``,
    ``label_map``, any loading transform). The result is cached in the folder
    ``$FEDSEG_CACHE`` (default ``~/.cache/fedseg_mm``) until a file changes.

    Args:
        dataset (BaseDataset or ConcatDataset): With labels.
        num_workers (int): Processes that read files. Defaults to 0.
        purpose (str): What the data set is for, for the progress bar.
        unannotated (np.ndarray, optional): Per image the label value that
            means "unannotated", -1 for none, -2 for an image that is not to
            be looked at, int (images,). Defaults to None: -1 for all.

    Returns:
        LabelCounts: Of every image.

    Raises:
        FedSegError: An image or label is missing or damaged, they differ in
            size, or a label value is outside the classes; names the file.
    """
    dataset.full_init()
    num_classes = len(dataset.metainfo['classes'])
    unannotated = np.full(len(dataset), -1) if unannotated is None else unannotated
    cache = _cache_file(dataset, unannotated)
    counts = _read_cache(cache, (len(dataset), num_classes + 1))
    if counts is not None:
        return LabelCounts(counts[:, :-1], counts[:, -1])

    scan = _LabelScan(dataset, num_classes, unannotated)
    # its own generator: whether the cache is used must not change what is drawn from the global one later
    loader = DataLoader(scan, batch_size=8, num_workers=num_workers, collate_fn=list, generator=Generator())
    print_log(f'Checking {len(dataset)} {purpose} images and labels, once until a file changes.', 'current')
    counts = np.zeros((len(dataset), num_classes + 1), np.int64)
    with closing(row for batch in loader for row in batch) as rows:
        bar = track(rows, purpose, total=len(dataset), transient=True, disable=not sys.stdout.isatty())
        for index, row in enumerate(bar):
            if isinstance(row, str):
                raise FedSegError(row)
            counts[index] = row
    _write_cache(cache, counts)
    return LabelCounts(counts[:, :-1], counts[:, -1])


class _LabelScan(Dataset):
    """Class counts of one image and its unannotated pixels, or the sentence that says what is wrong with it."""

    def __init__(self, dataset, num_classes: int, unannotated: np.ndarray) -> None:
        self.dataset = dataset
        self.num_classes = num_classes
        self.unannotated = unannotated.tolist()
        self.pipelines = [
            pipeline for part in plain_datasets(dataset)
            for pipeline in [list(_label_loading(part.pipeline.transforms))] * len(part)
        ]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> np.ndarray | str:
        if self.unannotated[index] == -2:
            return np.zeros(self.num_classes + 1, np.int64)
        info = self.dataset.get_data_info(index)
        try:
            return self._count(info, self.pipelines[index], self.unannotated[index])
        except FedSegError as defect:
            return str(defect)

    def _count(self, info: dict, pipeline: list, unannotated: int) -> np.ndarray:
        image, label = info.get('img_path'), info.get('seg_map_path')
        size = None if image is None else _image_size(image)
        if label is not None and image is not None:
            _check_depth(label, image)
        try:
            for transform in pipeline:
                info = transform(info)
                if 'gt_seg_map' in info:
                    break
            values = np.asarray(info['gt_seg_map'])
        except Exception as error:  # a data set's own loading may raise anything; the file must be named
            raise FedSegError(f'the label {label} of image {image} cannot be loaded: {error!r}') from error
        if values.ndim != 2:
            raise FedSegError(f'the label {label} has {values.ndim} dimensions, but must hold one class index per '
                              'pixel: painted colours must be turned into indices')
        if not np.issubdtype(values.dtype, np.integer):
            raise FedSegError(f'the label {label} has the type {values.dtype}, but must hold integers')
        if size is not None and values.shape != size:
            raise FedSegError(f'the label {label} is {values.shape[1]}x{values.shape[0]} pixels, but its image {image} '
                              f'is {size[1]}x{size[0]}')
        least, greatest = values.min(), values.max()
        if least >= 0 and greatest <= VOID:
            counts = np.bincount(values.ravel(), minlength=VOID + 1)
            hidden = 0
            if unannotated >= 0:
                hidden, counts[unannotated] = counts[unannotated], 0
            outside = np.flatnonzero(counts[self.num_classes:VOID]) + self.num_classes
            if not len(outside):
                return np.append(counts[:self.num_classes], hidden)
            greatest = outside[0]
        raise FedSegError(f'the label {label} holds the value {least if least < 0 else greatest}, but the '
                          f'{self.num_classes} classes are 0 to {self.num_classes - 1}, and {VOID} is void')


def _label_loading(transforms: list) -> Iterator:
    """The transform that loads labels, or all but those that read the image, one of which may make them."""
    loads_labels = [transform for transform in transforms if getattr(transform, 'with_seg', False)]
    return iter(loads_labels or [t for t in transforms if not isinstance(t, LoadImageFromFile)])


def _read(path: str, what: str, hint: str = '') -> Image.Image | None:
    """The opened file; None where only a special loader can read its format (.npy, .tif of floats, …)."""
    try:
        return Image.open(io.BytesIO(fileio.get(path)))
    except FileNotFoundError as error:
        raise FedSegError(f'{what} does not exist{hint}') from error
    except UnidentifiedImageError as error:
        if Path(path).suffix.lower() in ('.jpg', '.jpeg', '.png', '.bmp', '.gif', '.webp'):
            raise FedSegError(f'{what} is damaged: it is no image that can be read') from error
        return None


def _image_size(path: str) -> tuple[int, int] | None:
    """Height and width. The whole image is decoded, because a cut-off file shows only at its end."""
    image = _read(path, f'the image {path}')
    if image is None:
        return None
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise FedSegError(f'the image {path} is damaged: {error}') from error
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # loaders turn the image upright
    return (image.width, image.height) if turned else (image.height, image.width)


def _check_depth(path: str, image: str) -> None:
    """MMSegmentation reads labels as 8 bit, and silently turns 257 into 1."""
    label = _read(path, f'the label {path} of image {image}', '; a manifest of the clients may leave the image out')
    if label is not None and label.mode.startswith(('I', 'F')):
        try:
            greatest = np.asarray(label).max()
        except (OSError, SyntaxError, ValueError) as error:
            raise FedSegError(f'the label {path} of image {image} is damaged: {error}') from error
        if greatest > VOID:
            raise FedSegError(f'the label {path} holds the value {greatest} in 16 or 32 bits, but labels are read as '
                              '8 bits: save it with values up to 255')


def _cache_file(dataset, unannotated: np.ndarray) -> Path:
    """The cache's place, named by a fingerprint of files and label loading."""
    digest = hashlib.sha256(np.asarray(unannotated, '<i8').tobytes())
    for part in plain_datasets(dataset):
        loading = [repr(transform) for transform in _label_loading(part.pipeline.transforms)]
        digest.update(repr((part.metainfo['classes'], part.metainfo.get('label_map'),
                            part.metainfo.get('reduce_zero_label'), loading)).encode())
        for index in range(len(part)):
            info = part.get_data_info(index)
            for path in (info.get('img_path'), info.get('seg_map_path')):
                digest.update(f'{path} {file_state(path)}\n'.encode())
    return cache_folder() / f'class_counts_{digest.hexdigest()[:24]}.npy'


def _read_cache(cache: Path, shape: tuple[int, int]) -> np.ndarray | None:
    counts = read_array(cache)
    return counts if counts is not None and counts.shape == shape and counts.dtype == np.int64 else None


def _write_cache(cache: Path, counts: np.ndarray) -> None:
    try:
        write_array(cache, counts)
    except OSError as error:
        print_log(f'The class counts could not be cached ({error}); the next run scans the labels again.', 'current')
