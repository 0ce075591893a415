"""``site.yaml``: what a site has, and what it lets others know."""
import os
from dataclasses import dataclass, field
from pathlib import Path

from fedseg_mm.errors import Faults, FedSegError, shown
from fedseg_mm.files import parse, read_bytes
from fedseg_mm.validation import check_keys

#: What a site.yaml begins as.
TEMPLATE = """\
# What this site trains on. Images and masks never leave it.
train:
  images: data/train/images   # a folder; relative paths start at this file
  masks: data/train/masks     # one mask per image: a pixel's value is the place of its class in the list of classes
# Images that the global model is evaluated on here; the server learns how often each class was taken for which. Leave
# out `val` for a site that evaluates nothing.
val:
  images: data/val/images
  masks: data/val/masks
image_suffix: .png
mask_suffix: .png
# Classes that are annotated here, by name; leave out for all. Pixels of other classes count as unannotated.
# annotates: [road, car]
# The mask's value for pixels that nobody has annotated; leave out where there is none.
# unannotated: 254
# True where 0 in a mask means "no class" and the classes count from 1.
# reduce_zero_label: true
device: cpu                   # or cuda
workers: 0                    # processes that load images
# What the server is told of the images beside their number: pixels of each class. [] to refuse.
tell: [pixels]
"""
#: Bytes that a site.yaml has at most.
_MOST_BYTES = 1 << 20
KEYS = ('train', 'val', 'image_suffix', 'mask_suffix', 'annotates', 'unannotated', 'reduce_zero_label', 'device',
        'workers', 'tell', 'imports')


@dataclass(frozen=True)
class SiteConfig:
    """A site's own settings, which no server changes.

    Args:
        train (dict): ``images`` and ``masks``, folders.
        val (dict, optional): Likewise, for evaluation.
        image_suffix (str): Ending of an image's file name.
        mask_suffix (str): Ending of a mask's, in place of it.
        annotates (tuple[str], optional): Classes annotated here. Defaults to
            None: all.
        unannotated (int, optional): Value of unannotated pixels in masks.
        reduce_zero_label (bool): As in MMSegmentation.
        device (str): 'cpu' or 'cuda'.
        workers (int): Processes that load images.
        tell (tuple[str]): What the server is told: 'pixels', or nothing.
        imports (tuple[str]): Modules of the site's own that register
            transforms or models.
    """
    train: dict
    val: dict | None = None
    image_suffix: str = '.png'
    mask_suffix: str = '.png'
    annotates: tuple[str, ...] | None = None
    unannotated: int | None = None
    reduce_zero_label: bool = False
    device: str = 'cpu'
    workers: int = 0
    tell: tuple[str, ...] = ('pixels', )
    imports: tuple[str, ...] = field(default=())

    @classmethod
    def read(cls, path: Path) -> 'SiteConfig':
        """Read a site.yaml.

        Raises:
            FedSegError: Names all that is wrong in it.
        """
        try:
            content = parse(read_bytes(path, _MOST_BYTES).decode(), as_yaml=True)
        except OSError as error:
            raise FedSegError(f'{path} cannot be read ({error.strerror}): `silo provision` writes one to begin with'
                              ) from error
        except FedSegError:
            raise
        except ValueError as error:
            raise FedSegError(f'{path} is not YAML: {shown(str(error))}') from error
        if not isinstance(content, dict):
            raise FedSegError(f'{path} must hold `key: value` lines, such as `train:`')
        faults = Faults()
        with faults:
            check_keys(content, KEYS, str(path))
        for part in ('train', 'val'):
            if content.get(part) is None:
                if part == 'train':
                    faults.add(f'{path}: `train` is missing: name the folders of images and masks')
                content.pop(part, None)
                continue
            with faults:
                content[part] = _folders(content[part], part, path)
        for key in ('annotates', 'tell', 'imports'):
            if content.get(key) is not None:
                if not isinstance(content[key], list) or not all(isinstance(one, str) for one in content[key]):
                    faults.add(f'{path}: `{key}` must be a list of names, but is {shown(content[key])}')
                else:
                    content[key] = tuple(content[key])
        tell = content.get('tell')
        if isinstance(tell, tuple) and (unknown := set(tell) - {'pixels'}):
            faults.add(f'{path}: `tell` may list pixels, but lists {shown(min(unknown))}')
        for key in ('image_suffix', 'mask_suffix'):
            if not isinstance(content.get(key, ''), (str, type(None))):
                faults.add(f'{path}: `{key}` must be the ending of a name, but is {shown(content[key])}')
        if content.get('device', 'cpu') not in ('cpu', 'cuda'):
            faults.add(f'{path}: `device` must be cpu or cuda, but is {shown(content["device"])}')
        for key in ('unannotated', 'workers'):
            value = content.get(key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                faults.add(f'{path}: `{key}` must be a number from 0, but is {shown(value)}')
        faults.report()
        return cls(**{key: value for key, value in content.items() if value is not None})

    def dataset(self, part: str, classes: tuple[str, ...], pipeline: list) -> dict:
        """The config of MMSegmentation's data set for 'train' or 'val'."""
        folders = getattr(self, part)
        return dict(type='BaseSegDataset', data_prefix=dict(img_path=folders['images'], seg_map_path=folders['masks']),
                    img_suffix=self.image_suffix, seg_map_suffix=self.mask_suffix, metainfo=dict(classes=classes),
                    reduce_zero_label=self.reduce_zero_label, pipeline=pipeline, test_mode=part == 'val')


def _folders(value, part: str, path: Path) -> dict:
    if not isinstance(value, dict) or set(value) != {'images', 'masks'} or not all(
            isinstance(folder, str) for folder in value.values()):
        raise FedSegError(f'{path}: `{part}` must name two folders, `images` and `masks`, but is {shown(value)}')
    found = {}
    for key, folder in value.items():
        whole = path.parent / folder
        if not os.path.isdir(whole):
            raise FedSegError(f'{path}: the folder {shown(str(whole), 1000)} of `{part}.{key}` does not exist')
        found[key] = str(whole.resolve())
    return found
