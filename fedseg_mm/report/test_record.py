"""What an evaluation by tools/test.py has left."""
import csv
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from fedseg_mm.datasets.labels import NO_IMAGE
from fedseg_mm.evaluation import read_matrix
from fedseg_mm.files import parse, read_bytes
from fedseg_mm.validation import fits, is_figure, is_text

#: Pixels of a picture's longer side, at most: a test keeps them at 480 in width.
MOST_SIDE = 8192


def _is_figure(value) -> bool:
    return value is None or is_figure(value)


def _are_figures(value) -> bool:
    return isinstance(value, dict) and all(map(_is_figure, value.values()))


_SPREAD = {f'{name}?': {'mean': is_figure, 'std': is_figure, 'min': is_figure, 'max': is_figure, 'worst': is_text}
           for name in ('mIoU', 'mIoU_annotated', 'mIoU_never_annotated')}
_PER_CLIENT = {
    'clients': [{'client': is_text, 'own_model': lambda value: isinstance(value, bool), 'annotated': [is_text],
                 'own_images': _are_figures, 'test_images': _are_figures}],
    'spread': {'own_images': _SPREAD, 'test_images': _SPREAD}}
_CLASSES = {'names?': [is_text], 'images?': [is_text], 'palette?': [lambda value: fits(
    value, [lambda part: type(part) is int and 0 <= part < 256]) and len(value) == 3]}


class TestRecord:
    """Reads the newest figures, confusion matrix and predictions of a run's evaluations; what is not there is None.

    Args:
        folder (Path): The run's work dir.
    """
    __test__ = False  # it is none of pytest's

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _newest(self, name: str) -> Path | None:
        """MMEngine names folders by time."""
        found = [*self.folder.glob(f'2*/{name}'), *self.folder.glob(f'test/2*/{name}')]
        return max(found, key=lambda path: path.stat().st_mtime, default=None)

    @cached_property
    def confusion(self) -> tuple[np.ndarray, list[str]] | None:
        """The confusion matrix in pixels, and the class names."""
        path = self._newest('confusion.csv')
        try:
            return None if path is None else read_matrix(path)
        except (OSError, ValueError, OverflowError, csv.Error):
            return None

    @cached_property
    def per_client(self) -> dict | None:
        """Every client's figures, and their spread."""
        path = self._newest('per_client.json')
        try:
            content = None if path is None else parse(read_bytes(path).decode())
        except (OSError, ValueError):
            return None
        return content if fits(content, _PER_CLIENT) and content and content['clients'] else None

    @cached_property
    def predictions(self) -> dict[str, tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
        """Image file -> image (H, W, 3) in RGB, label and predicted classes (H, W)."""
        path = self._newest('predictions/classes.json')
        found: dict = {}
        if path is None:
            return found
        for number, name in enumerate(self.classes.get('images', ())):
            image, label, prediction = (self._read(path.parent / f'{number}_{what}.png', mode) for what, mode in (
                ('image', 'RGB'), ('label', 'L'), ('prediction', 'L')))
            if image is not None and prediction is not None:
                found[Path(name).name] = image, label, prediction
        return found

    @staticmethod
    def _read(path: Path, mode: str) -> np.ndarray | None:
        try:
            with Image.open(path) as picture:
                if max(picture.size) > MOST_SIDE:
                    return None
                return np.asarray(picture.convert(mode))
        except NO_IMAGE:
            return None

    @cached_property
    def classes(self) -> dict:
        """Names, palette and images of :attr:`predictions`."""
        path = self._newest('predictions/classes.json')
        try:
            content = {} if path is None else parse(read_bytes(path).decode())
        except (OSError, ValueError):
            return {}
        return content if fits(content, _CLASSES) else {}
