"""Who holds what, as a picture."""
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.ticker import PercentFormatter

from fedseg_mm.datasets.partition_summary import PartitionSummary
from fedseg_mm.visualization.figure import Figure

#: Rows that can still be told apart.
MOST_ROWS = 600


def draw_partition(summary: PartitionSummary, path: str | Path) -> None:
    """Draw clients against classes, images per client and unannotated shares.

    A cell's colour is the number of the client's images that show the class;
    a frame marks the classes that the client annotates. Of more clients than
    rows can be told apart, a row is the mean of neighbours, and a frame is as
    opaque as many of them annotate the class.

    Args:
        summary (PartitionSummary): The partition.
        path (str or Path): The PNG file to write.
    """
    clients = len(summary.partition)
    rows = min(clients, MOST_ROWS)
    starts = np.arange(rows) * clients // rows
    per_row = np.diff([*starts, clients])

    def means(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, starts, dtype=float) / per_row.reshape(-1, *[1] * (values.ndim - 1))

    shown = means(summary.per_client(summary.class_counts > 0))
    classes = shown.shape[1]
    cell = min(0.3, 24 / rows)
    figure = Figure(figsize=(4.5 + max(3.5, 0.35 * classes), 2 + cell * rows), layout='constrained')
    heat, images, hidden = figure.subplots(1, 3, sharey=True, width_ratios=[max(3.5, 0.35 * classes), 1.6, 1.6])

    centres = starts + (per_row - 1) / 2
    picture = heat.imshow(shown, aspect='auto', cmap='Blues', interpolation='nearest', vmin=0,
                          extent=(-0.5, classes - 0.5, clients - 0.5, -0.5))
    annotated = means(summary.annotated)
    held = np.argwhere(annotated)
    frames = np.tile(to_rgba('tab:red'), (len(held), 1))
    frames[:, 3] = annotated[annotated > 0]
    heat.scatter(held[:, 1], centres[held[:, 0]], marker='s', s=min(120, (cell * 50)**2), facecolors='none',
                 edgecolors=frames, linewidths=min(1.5, 5 * cell))
    heat.set_xticks(range(classes), summary.class_names, rotation=90, fontsize=min(9, 900 / classes))
    heat.set_ylabel('client')
    heat.set_title('images that show a class (framed: annotated)', fontsize=10)
    figure.colorbar(picture, ax=heat, location='left', shrink=0.6)

    height = 0.8 * clients / rows
    images.barh(centres, means(summary.num_images), height, color='tab:blue')
    images.set_title('images', fontsize=10)
    hidden.barh(centres, means(summary.unannotated_share), height, color='tab:gray')
    hidden.set_xlim(0, 1)
    hidden.xaxis.set_major_formatter(PercentFormatter(1))
    hidden.set_title('unannotated', fontsize=10)
    if clients <= 80:
        names = [shard.name or str(client) for client, shard in enumerate(summary.partition.clients)]
        heat.set_yticks(centres, names, fontsize=min(9, 40 * cell))
    mean = f', a row is the mean of {clients / rows:.3g}' if rows < clients else ''
    figure.suptitle(f'{clients} clients, {int(summary.num_images.sum())} images{mean}')
    figure.savefig(path, dpi=120)
