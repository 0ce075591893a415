"""Methods side by side: curves, and predictions beside the truth."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fedseg_mm.visualization.picture_grid import draw_grid


def draw_comparison(curves: Mapping[str, Sequence[tuple[int, float]]], rows: Sequence[tuple[np.ndarray, ...]],
                    titles: Sequence[str], class_names: Sequence[str], palette: Sequence[Sequence[int]],
                    path: str | Path) -> None:
    """Draw the methods' curves, and a row of pictures per image.

    Args:
        curves (Mapping[str, Sequence[tuple[int, float]]]): For each method,
            round and mIoU (%) of its evaluations.
        rows (Sequence[tuple[np.ndarray, ...]]): Per image the RGB image (H, W,
            3), the truth (H, W) and each method's prediction (H, W).
        titles (Sequence[str]): Heads of the columns of ``rows``.
        class_names (Sequence[str]): Names of the C classes.
        palette (Sequence[Sequence[int]]): Their RGB colours, (C, 3).
        path (str or Path): The PNG file to write.
    """
    figure = Figure(figsize=(12, 1.5 * len(rows) + 0.6), layout='constrained')
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[4, 7.6])[0]

    axes = left.subplots()
    for style, (name, points) in zip(('--', '-', '-.', ':') * len(curves), curves.items()):
        axes.plot(*zip(*points), style, marker='.', label=name)
    axes.set_xlabel('round')
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel('mIoU (%)')
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc='upper left', fontsize=9)

    draw_grid(right, rows, titles, class_names, palette)
    figure.savefig(path, dpi=100)
