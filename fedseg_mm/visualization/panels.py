"""Predictions of several methods beside the truth."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedseg_mm.visualization.figure import Figure
from fedseg_mm.visualization.picture_grid import draw_grid


def draw_panels(rows: Sequence[tuple[np.ndarray, ...]], titles: Sequence[str], class_names: Sequence[str],
                palette: Sequence[Sequence[int]], path: str | Path) -> None:
    """Draw image, truth and predictions, a row per image.

    Args:
        rows (Sequence[tuple[np.ndarray, ...]]): Per image its pictures: RGB
            (H, W, 3), or classes (H, W).
        titles (Sequence[str]): Heads of the columns of ``rows``.
        class_names (Sequence[str]): Names of the C classes.
        palette (Sequence[Sequence[int]]): Their RGB colours, (C, 3).
        path (str or Path): The PNG file to write.
    """
    height, width = rows[0][0].shape[:2]
    figure = Figure(figsize=(2.1 * len(titles), 2.1 * height / width * len(rows) + 0.8), layout='constrained')
    draw_grid(figure, rows, titles, class_names, palette, legend_columns=min(len(class_names), 3 * len(titles) // 2))
    figure.savefig(path, dpi=120)
