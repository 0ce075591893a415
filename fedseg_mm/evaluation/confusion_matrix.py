"""Pixels by truth and prediction, and the figures that follow from them."""
import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS

from fedseg_mm.files import atomic_write


@METRICS.register_module()
class ConfusionMatrix(BaseMetric):
    """Counts the pixels of every class by what they are predicted to be.

    It adds no figure of its own to an evaluation; :attr:`matrices` is for
    whoever asked for it. Pixels whose label is no class (void, unannotated)
    are left out, as they are in MMSegmentation's ``IoUMetric``.
    """

    #: Client -> (C, C) pixels, truth by prediction; all images are client 0's unless their samples say ``client``.
    #: Only the first of several processes has them.
    matrices: dict[int, np.ndarray]

    def __init__(self) -> None:
        super().__init__()
        self.matrices = {}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of one batch.

        Args:
            data_batch (dict): Not needed.
            data_samples (Sequence[dict]): With ``pred_sem_seg`` and
                ``gt_sem_seg``, each ``data`` of shape (1, H, W).
        """
        classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            prediction = sample['pred_sem_seg']['data'].squeeze()
            label = sample['gt_sem_seg']['data'].squeeze().to(prediction)
            pairs, pixels = (label * classes + prediction)[label < classes].unique(return_counts=True)
            self.results.append((sample.get('client', 0), pairs.cpu().numpy(), pixels.cpu().numpy()))

    def compute_metrics(self, results: list[tuple[int, np.ndarray, np.ndarray]]) -> dict[str, float]:
        classes = len(self.dataset_meta['classes'])
        self.matrices = {}
        for client, pairs, pixels in results:
            matrix = self.matrices.setdefault(client, np.zeros((classes, classes), np.int64))
            matrix.reshape(-1)[pairs] += pixels
        return {}


def shown_percent(value: float | None) -> str:
    """A figure as tables show it; a dash where there is none."""
    return '–' if value is None else f'{value:.2f}'


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """IoU of every class in percent, (C, ); NaN where it is neither shown nor predicted."""
    both, either = np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    return 100 * np.divide(both, either, out=np.full(len(matrix), np.nan), where=either > 0)


def mean_iou(matrix: np.ndarray, classes: Collection[int] | None = None) -> float | None:
    """Mean IoU in percent, over the classes that are shown or predicted; None where there is none.

    Args:
        matrix (np.ndarray): (C, C) pixels, truth by prediction.
        classes (Collection[int], optional): Those that the mean is over.
            Defaults to None: all.
    """
    found = class_iou(matrix)[list(classes) if classes is not None else slice(None)]
    found = found[~np.isnan(found)]
    return float(found.mean()) if len(found) else None


def pixel_accuracy(matrix: np.ndarray) -> float | None:
    """Percent of the pixels that are predicted right (MMSegmentation's aAcc); None where there is none."""
    return float(100 * np.trace(matrix) / matrix.sum()) if matrix.any() else None


def write_matrix(matrix: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Write a confusion matrix as CSV: a line per true class, a column per predicted one, in pixels."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(['truth \\ prediction', *class_names])
    writer.writerows([name, *line] for name, line in zip(class_names, matrix.tolist()))
    with atomic_write(path) as file:
        file.write_text(text.getvalue(), encoding='utf-8')


def read_matrix(path: Path) -> tuple[np.ndarray, list[str]]:
    """What :func:`write_matrix` wrote: the matrix and the class names.

    Raises:
        ValueError: It is no such file.
    """
    with path.open(encoding='utf-8', newline='') as file:
        head, *lines = csv.reader(file)
    names = head[1:]
    if not names or [line[0] for line in lines if line] != names or any(len(line) != len(head) for line in lines):
        raise ValueError(f'{path} is not a confusion matrix')
    return np.array([line[1:] for line in lines], np.int64), names
