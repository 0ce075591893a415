"""Loads a street scene by drawing it, wherever MMEngine or MMSegmentation would read a file."""
import re
from collections import OrderedDict

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import BaseStorageBackend, register_backend
from mmseg.registry import TRANSFORMS

from fedseg_mm.datasets.street_scene_painter import StreetScenePainter
from fedseg_mm.errors import FedSegError
from fedseg_mm.seeding import derive_seed

PREFIX = 'street_scenes'
#: Raised whenever the painter draws otherwise, so that cached class counts are not taken for the new scenes'.
VERSION = 1
#: Bytes of the scenes that a process keeps, as to draw one again takes a third of a small model's training.
KEPT_BYTES = 64_000_000
_kept: OrderedDict[str, tuple[np.ndarray, np.ndarray]] = OrderedDict()


def scene_path(split: str, index: int, size: tuple[int, int], seed: int = 0, label: bool = False) -> str:
    """The name of a scene's image or label, which :func:`paint_scene` draws from."""
    suffix = '_label' if label else ''
    return f'{PREFIX}://{split}/{size[0]}x{size[1]}/seed{seed}/{index:06d}{suffix}.png'


def paint_scene(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw the scene that a path names, or take it from those that were drawn last.

    Args:
        path (str): As made by :func:`scene_path`.

    Returns:
        tuple[np.ndarray, np.ndarray]: The image in BGR, uint8 (H, W, 3), and
        its label, uint8 (H, W).

    Raises:
        FedSegError: The path names no scene.
    """
    named = re.fullmatch(rf'{PREFIX}://(.+)/(\d+)x(\d+)/seed(\d+)/(\d+)(_label)?\.png', str(path))
    if named is None:
        raise FedSegError(f'{path} is not the name of a street scene, e.g. {scene_path("train", 0, (160, 120))}')
    width, height, seed, index = map(int, named.groups()[1:5])
    name = scene_path(named[1], index, (width, height), seed)
    scene = _kept.pop(name, None) or StreetScenePainter(
        derive_seed(seed, f'street scene {named[1]}', index), width, height).paint()
    _kept[name] = scene
    while len(_kept) * 4 * width * height > KEPT_BYTES:  # bytes of image and label, if all are of this size
        _kept.popitem(last=False)
    image, label = scene
    return image.copy(), label.copy()  # transforms may change them in place


@TRANSFORMS.register_module()
class LoadStreetScene(BaseTransform):
    """Draw a street scene and its label: both loading transforms in one.

    Required keys: ``img_path``, as StreetScenesDataset names it; ``label_map``
    and ``reduce_zero_label``, which are applied as LoadAnnotations does.
    Added keys: ``img`` (H, W, 3) in BGR, ``img_shape``, ``ori_shape``,
    ``gt_seg_map`` (H, W), ``seg_fields``.
    """
    #: It loads labels: what counts their classes before training asks for this.
    with_seg = True

    def transform(self, results: dict) -> dict:
        image, label = paint_scene(results['img_path'])
        if results.get('reduce_zero_label'):
            label = np.where((label == 0) | (label == 255), 255, label - 1).astype(np.uint8)
        if results.get('label_map') is not None:
            new_label = np.arange(256, dtype=np.uint8)
            new_label[list(results['label_map'])] = list(results['label_map'].values())
            label = new_label[label]
        results['img'], results['gt_seg_map'] = image, label
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(version={VERSION})'


@register_backend(PREFIX, prefixes=PREFIX, force=True)
class StreetScenesBackend(BaseStorageBackend):
    """MMEngine's way to a file: what opens a scene's path gets a PNG."""

    def get(self, filepath: str) -> bytes:
        image, label = paint_scene(filepath)
        return cv2.imencode('.png', label if str(filepath).endswith('_label.png') else image)[1].tobytes()

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        raise FedSegError(f'{filepath} is an image, not a text')
