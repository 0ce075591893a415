"""What is taken for what, as a picture."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedseg_mm.visualization.figure import Figure

#: Classes whose cells have their numbers in them.
MOST_NUMBERED = 24


def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], path: str | Path) -> None:
    """Draw a confusion matrix: each row is the pixels of a class, in percent of them.

    Args:
        matrix (np.ndarray): (C, C) pixels, truth by prediction.
        class_names (Sequence[str]): The classes by index.
        path (str or Path): The PNG file to write.
    """
    number = len(class_names)
    pixels = matrix.sum(1, keepdims=True)
    share = 100 * np.divide(matrix, pixels, out=np.full(matrix.shape, np.nan), where=pixels > 0)
    size = min(24.0, 3.2 + 0.42 * number)
    figure = Figure(figsize=(size + 0.8, size), layout='constrained')
    axes = figure.subplots()
    picture = axes.imshow(share, cmap='cividis', vmin=0, vmax=100, interpolation='nearest')
    font = min(9, 900 / number)
    axes.set_xticks(range(number), class_names, rotation=90, fontsize=font)
    axes.set_yticks(range(number), class_names, fontsize=font)
    axes.set(xlabel='prediction', ylabel='truth')
    if number <= MOST_NUMBERED:
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.5:
                axes.text(column, row, f'{value:.0f}', ha='center', va='center', fontsize=8,
                          color='black' if value > 55 else 'white')
    figure.colorbar(picture, label='pixels of the true class (%)', shrink=0.8)
    figure.savefig(path, dpi=100)
