"""Images, labels and predictions in rows and columns."""
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch


def draw_grid(figure: Figure | SubFigure, rows: Sequence[tuple[np.ndarray, ...]], titles: Sequence[str],
              class_names: Sequence[str], palette: Sequence[Sequence[int]], legend_columns: int = 5) -> None:
    """Draw a row of pictures per image, and the classes' colours below.

    Args:
        figure (Figure or SubFigure): Where to draw.
        rows (Sequence[tuple[np.ndarray, ...]]): Per image its pictures: RGB
            (H, W, 3), or classes (H, W).
        titles (Sequence[str]): Heads of the columns of ``rows``.
        class_names (Sequence[str]): Names of the C classes.
        palette (Sequence[Sequence[int]]): Their RGB colours, (C, 3).
        legend_columns (int): Columns of the classes' names. Defaults to 5.
    """
    colours = np.zeros((256, 3), np.uint8)
    colours[:len(palette)] = palette
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, images in zip(grid, rows):
        for place, image in zip(line, images):
            place.imshow(image if image.ndim == 3 else colours[image], interpolation='nearest')
            place.set_axis_off()
    for place, title in zip(grid[0], titles):
        place.set_title(title, fontsize=10)
    patches = [Patch(color=tuple(np.array(colour) / 255), label=name) for name, colour in zip(class_names, palette)]
    figure.legend(handles=patches, loc='outside lower center', ncols=legend_columns, fontsize=8, frameon=False)
