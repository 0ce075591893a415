"""One pass over every image and label before training: class counts and defects."""
import hashlib
import io
import sys
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
from fedseg_mm.datasets.labels import MOST_PIXELS, NO_IMAGE, VOID
from fedseg_mm.datasets.transforms import MaskToClient, RemapUnannotated
from fedseg_mm.errors import Faults, FedSegError

#: Most files that are named, where several are at fault.
MOST_NAMED = 10
#: Settings of LoadImageFromFile under which a photo is turned upright, as its EXIF data say.
UPRIGHT = ('color', 'grayscale')


class LabelCounts(NamedTuple):
    """Labelled pixels of every image.

    Args:
        classes (np.ndarray): Those of each class, int64 (images, classes).
        unannotated (np.ndarray): Those that the image's file calls
            unannotated, int64 (images,).
        void (np.ndarray): Those of no class, int64 (images,).
        channels (np.ndarray): Channels of the loaded image, 0 where they are
            not known, int64 (images,).
    """
    classes: np.ndarray
    unannotated: np.ndarray
    void: np.ndarray
    channels: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray) -> 'LabelCounts':
        """From a table with a row per image, (images, classes + 3)."""
        return cls(table[:, :-3], *table[:, -3:].T)


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
    raise FedSegError(f'the data set wrapper {type(dataset).__name__} cannot be federated: it mixes or repeats images, '
                      'which a partition cannot follow; use the data set itself, or ConcatDataset')


def scan_labels(dataset, num_workers: int = 0, purpose: str = 'train',
                unannotated: np.ndarray | None = None, labelled: bool = True) -> LabelCounts:
    """Count the pixels of each class in each image, and find what cannot be trained on.

    Images are measured as the data set's own loader turns and decodes them;
    labels pass through its own loading (``reduce_zero_label``, ``label_map``,
    any loading transform). The result is cached in the folder
    ``$FEDSEG_CACHE`` (default ``~/.cache/fedseg_mm``) until a file changes.

    Args:
        dataset (BaseDataset or ConcatDataset): With labels.
        num_workers (int): Processes that read files. Defaults to 0.
        purpose (str): What the data set is for, for the progress bar.
        unannotated (np.ndarray, optional): Per image the label value that
            means "unannotated", -1 for none, -2 for an image that is not to
            be looked at, int (images,). Defaults to None: -1 for all.
        labelled (bool): Whether the images have labels; those of a test
            whose predictions are only written may have none. Defaults to
            True.

    Returns:
        LabelCounts: Of every image.

    Raises:
        FedSegError: Images or labels are missing or damaged, they differ in
            size or channels, or a label value is outside the classes; names
            up to ten files.
    """
    dataset.full_init()
    num_classes = len(dataset.metainfo['classes'])
    unannotated = np.full(len(dataset), -1) if unannotated is None else unannotated
    cache = _cache_file(dataset, unannotated, labelled)
    table = _read_cache(cache, (len(dataset), num_classes + 3))
    if table is not None:
        return LabelCounts.of(table)

    scan = _LabelScan(dataset, num_classes, unannotated, labelled)
    # its own generator: whether the cache is used must not change what is drawn from the global one later
    loader = DataLoader(scan, batch_size=8, num_workers=num_workers, collate_fn=list, generator=Generator())
    what = 'images and labels' if labelled else 'images'
    print_log(f'Checking {len(dataset)} {purpose} {what}; the result is cached until a file changes.', 'current')
    table = np.zeros((len(dataset), num_classes + 3), np.int64)
    faults = Faults()
    with closing(row for batch in loader for row in batch) as rows:
        bar = track(rows, purpose, total=len(dataset), transient=True, disable=not sys.stdout.isatty())
        for index, row in enumerate(bar):
            if not isinstance(row, str):
                table[index] = row
                continue
            faults.add(row)
            if len(faults.sentences) >= MOST_NAMED:
                break
    faults.report()
    counts = LabelCounts.of(table)
    _check_channels(dataset, counts.channels)
    _write_cache(cache, table)
    return counts


def _check_channels(dataset, channels: np.ndarray) -> None:
    """Refuse images with more or fewer channels than most of them have."""
    known = channels[channels > 0]
    if not len(known) or (known == known[0]).all():
        return
    usual = np.bincount(known).argmax()
    faults = Faults()
    for index in np.flatnonzero((channels > 0) & (channels != usual))[:MOST_NAMED]:
        faults.add(f'the image {dataset.get_data_info(int(index)).get("img_path")} has {channels[index]} channels, but '
                   f'most of the images have {usual}: convert it, or load all of them alike with '
                   "LoadImageFromFile's color_type='color'")
    faults.report()


class _LabelScan(Dataset):
    """A row of the table for one image, or the sentence that says what is wrong with it."""

    def __init__(self, dataset, num_classes: int, unannotated: np.ndarray, labelled: bool) -> None:
        self.dataset = dataset
        self.num_classes = num_classes
        self.unannotated = unannotated.tolist()
        self.loading = [
            loading for part in plain_datasets(dataset)
            for loading in [(_image_loader(part.pipeline.transforms),
                             _label_loading(part.pipeline.transforms) if labelled else None)] * len(part)
        ]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> np.ndarray | str:
        if self.unannotated[index] == -2:
            return np.zeros(self.num_classes + 3, np.int64)
        info = self.dataset.get_data_info(index)
        try:
            return self._row(info, *self.loading[index], self.unannotated[index])
        except FedSegError as defect:
            return str(defect)

    def _row(self, info: dict, loader: LoadImageFromFile, pipeline: list | None, unannotated: int) -> np.ndarray:
        image = info.get('img_path')
        shape = None if image is None else _image_size(image, loader)
        channels = 0 if shape is None else shape[2]
        if pipeline is None:
            return np.append(np.zeros(self.num_classes + 2, np.int64), channels)
        return np.append(self._count(info, pipeline, None if shape is None else shape[:2], unannotated), channels)

    def _count(self, info: dict, pipeline: list, size: tuple[int, int] | None, unannotated: int) -> np.ndarray:
        image, label = info.get('img_path'), info.get('seg_map_path')
        if label is not None and image is not None:
            _check_depth(label, image)
        try:
            for transform in pipeline:
                info = transform(info)
                if 'gt_seg_map' in info:
                    break
            if 'gt_seg_map' not in info:
                raise FedSegError(_NO_LABELS)
            values = np.asarray(info['gt_seg_map'])
        except FedSegError:
            raise
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
                return np.append(counts[:self.num_classes], (hidden, counts[VOID]))
            greatest = outside[0]
        raise FedSegError(f'the label {label} holds the value {least if least < 0 else greatest}, but the '
                          f'{self.num_classes} classes are 0 to {self.num_classes - 1}, and {VOID} is void')


_NO_LABELS = ('the pipeline loads no labels: add LoadAnnotations to it or, where predictions are only written, set '
              'format_only=True in the evaluator')


def _image_loader(transforms: list) -> LoadImageFromFile:
    """The pipeline's own loader of images; the usual one where it has another kind."""
    return next((one for one in transforms if isinstance(one, LoadImageFromFile)), LoadImageFromFile())


def _label_loading(transforms: list) -> list:
    """The transform that loads labels, or those of a third party, one of which may make them."""
    transforms = [one for one in transforms if not isinstance(one, (MaskToClient, RemapUnannotated))]
    loads_labels = [one for one in transforms if getattr(one, 'with_seg', False)]
    found = loads_labels or [one for one in transforms if 'Annotation' in type(one).__name__] or [
        one for one in transforms if not type(one).__module__.startswith(('mmcv.', 'mmseg.'))]
    if not found:
        raise FedSegError(_NO_LABELS)
    return found


def _read(path: str, what: str, hint: str = '', backend_args: dict | None = None) -> Image.Image | None:
    """The opened file; None where only another loader can read it (.npy, .tif of floats, beyond Pillow's limits, …)."""
    limit = Image.MAX_IMAGE_PIXELS
    try:
        content = io.BytesIO(fileio.get(path, backend_args=backend_args))
        Image.MAX_IMAGE_PIXELS = None  # to open is to read the size, and nothing else
        image = Image.open(content)
    except FileNotFoundError as error:
        raise FedSegError(f'{what} does not exist{hint}') from error
    except UnidentifiedImageError as error:
        if Path(path).suffix.lower() in ('.jpg', '.jpeg', '.png', '.bmp', '.gif', '.webp'):
            raise FedSegError(f'{what} is damaged: it cannot be read as an image') from error
        return None
    except ValueError:  # Pillow limits text, which others read
        return None
    except (OSError, SyntaxError) as error:
        raise FedSegError(f'{what} cannot be read: {error}') from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if image.width * image.height > MOST_PIXELS:
        raise FedSegError(f'{what} says that it is {image.width}x{image.height} pixels, which nobody reads: at most '
                          f'{MOST_PIXELS} can be; cut it into tiles')
    return None if limit is not None and image.width * image.height > 2 * limit else image


def _image_size(path: str, loader: LoadImageFromFile) -> tuple[int, int, int] | None:
    """Height, width and channels as ``loader`` gives them; None where Pillow cannot read the format.

    The whole image is decoded, because a cut-off file shows only at its end.
    """
    image = _read(path, f'the image {path}', backend_args=loader.backend_args)
    if image is None:
        if Path(path).suffix.lower() not in ('.jpg', '.jpeg', '.png', '.bmp', '.webp'):
            return None
        return _loaded_shape(path, loader)
    try:
        image.load()
    except (OSError, SyntaxError) as error:
        raise FedSegError(f'the image {path} is damaged: {error}') from error
    except ValueError:
        return _loaded_shape(path, loader)
    if loader.color_type not in (*UPRIGHT, *(f'{kind}_ignore_orientation' for kind in UPRIGHT)):
        return _loaded_shape(path, loader)  # as many channels as the file has
    turned = loader.color_type in UPRIGHT and loader.imdecode_backend not in ('turbojpeg', 'tifffile') and (
        image.getexif().get(ExifTags.Base.Orientation, 1) >= 5)
    height, width = (image.width, image.height) if turned else (image.height, image.width)
    return height, width, 3 if loader.color_type.startswith('color') else 1


def _loaded_shape(path: str, loader: LoadImageFromFile) -> tuple[int, int, int]:
    """Height, width and channels of what the loader makes of a file."""
    try:
        loaded = loader(dict(img_path=path))
        shape = loaded['img'].shape
    except Exception as error:  # a decoder may raise anything; the file must be named
        raise FedSegError(f'the image {path} cannot be loaded: {error!r}') from error
    return shape[0], shape[1], shape[2] if len(shape) > 2 else 1


def _check_depth(path: str, image: str) -> None:
    """MMSegmentation reads labels as 8 bit, and silently turns 257 into 1."""
    label = _read(path, f'the label {path} of image {image}', '; a manifest of the clients may leave the image out')
    if label is not None and label.mode.startswith(('I', 'F')):
        try:
            greatest = np.asarray(label).max()
        except NO_IMAGE as error:
            raise FedSegError(f'the label {path} of image {image} is damaged: {error}') from error
        if greatest > VOID:
            raise FedSegError(f'the label {path} holds the value {greatest} in 16 or 32 bits, but labels are read as '
                              '8 bits: save it with values up to 255')


def _cache_file(dataset, unannotated: np.ndarray, labelled: bool) -> Path:
    """The cache's place, named by a fingerprint of files and of how they are loaded.

    Raises:
        FedSegError: A file's name is not UTF-8, so that no manifest could
            name it; names up to ten.
    """
    digest = hashlib.sha256(np.asarray(unannotated, '<i8').tobytes())
    faults = Faults()
    for part in plain_datasets(dataset):
        transforms = part.pipeline.transforms
        loading = [repr(_image_loader(transforms)),
                   *(repr(transform) for transform in (_label_loading(transforms) if labelled else ()))]
        digest.update(repr((part.metainfo['classes'], part.metainfo.get('label_map'),
                            part.metainfo.get('reduce_zero_label'), labelled, loading)).encode())
        for index in range(len(part)):
            info = part.get_data_info(index)
            for path in (info.get('img_path'), info.get('seg_map_path')):
                try:
                    digest.update(f'{path} {file_state(path)}\n'.encode())
                except UnicodeEncodeError:
                    printable = str(path).encode(errors='backslashreplace').decode()
                    faults.add(f'the name of the file {printable} is not UTF-8, in which manifests are written: rename '
                               'it')
            if len(faults.sentences) >= MOST_NAMED:
                break
    faults.report()
    return cache_folder() / f'label_table_{digest.hexdigest()[:24]}.npy'


def _read_cache(cache: Path, shape: tuple[int, int]) -> np.ndarray | None:
    counts = read_array(cache)
    return counts if counts is not None and counts.shape == shape and counts.dtype == np.int64 else None


def _write_cache(cache: Path, counts: np.ndarray) -> None:
    try:
        write_array(cache, counts)
    except OSError as error:
        print_log(f'The class counts could not be cached ({error}); the next run scans the labels again.', 'current')
