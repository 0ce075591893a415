"""What an evaluation by tools/test.py has left."""
import json
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from fedseg_mm.evaluation import read_matrix


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
        except (OSError, ValueError):
            return None

    @cached_property
    def per_client(self) -> dict | None:
        """Every client's figures, and their spread."""
        path = self._newest('per_client.json')
        try:
            content = None if path is None else json.loads(path.read_text(encoding='utf-8'))
            return content if content and content['clients'] and content['spread'] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @cached_property
    def predictions(self) -> dict[str, tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
        """Image file -> image (H, W, 3) in RGB, label and predicted classes (H, W)."""
        path = self._newest('predictions/classes.json')
        found: dict = {}
        if path is None:
            return found
        for number, name in enumerate(self.classes.get('images', ())):
            image, label, prediction = (self._read(path.parent / f'{number}_{what}.png', colour) for what, colour in (
                ('image', cv2.IMREAD_COLOR), ('label', cv2.IMREAD_GRAYSCALE), ('prediction', cv2.IMREAD_GRAYSCALE)))
            if image is not None and prediction is not None:
                found[Path(str(name)).name] = image[..., ::-1], label, prediction
        return found

    @staticmethod
    def _read(path: Path, colour: int) -> np.ndarray | None:
        return cv2.imread(str(path), colour) if path.is_file() else None

    @cached_property
    def classes(self) -> dict:
        """Names, palette and images of :attr:`predictions`."""
        path = self._newest('predictions/classes.json')
        try:
            content = {} if path is None else json.loads(path.read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}
