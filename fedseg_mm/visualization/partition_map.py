"""Who holds what, as a picture."""
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fedseg_mm.datasets.partition_summary import PartitionSummary


def draw_partition(summary: PartitionSummary, path: str | Path) -> None:
    """Draw clients against classes, images per client and unannotated shares.

    A cell's colour is the number of the client's images that show the class;
    a frame marks the classes that the client annotates.

    Args:
        summary (PartitionSummary): The partition.
        path (str or Path): The PNG file to write.
    """
    shown = summary.per_client((summary.class_counts > 0).astype(np.int64))
    clients, classes = shown.shape
    cell = min(0.3, 24 / clients)
    figure = Figure(figsize=(4.5 + max(3.5, 0.35 * classes), 2 + cell * clients), layout='constrained')
    heat, images, hidden = figure.subplots(1, 3, sharey=True, width_ratios=[max(3.5, 0.35 * classes), 1.6, 1.6])

    picture = heat.imshow(shown, aspect='auto', cmap='Blues', interpolation='nearest')
    held = np.argwhere(summary.annotated)
    heat.scatter(held[:, 1], held[:, 0], marker='s', s=min(120, (cell * 50)**2), facecolors='none',
                 edgecolors='tab:red', linewidths=min(1.5, 5 * cell))
    heat.set_xticks(range(classes), summary.class_names, rotation=90, fontsize=min(9, 900 / classes))
    heat.set_ylabel('client')
    heat.set_title('images that show a class (framed: annotated)', fontsize=10)
    figure.colorbar(picture, ax=heat, location='left', shrink=0.6)

    rows = np.arange(clients)
    images.barh(rows, summary.num_images, color='tab:blue')
    images.set_title('images', fontsize=10)
    hidden.barh(rows, summary.unannotated_share, color='tab:gray')
    hidden.set_xlim(0, 1)
    hidden.xaxis.set_major_formatter(PercentFormatter(1))
    hidden.set_title('unannotated', fontsize=10)
    if clients <= 80:
        names = [shard.name or str(client) for client, shard in enumerate(summary.partition.clients)]
        heat.set_yticks(rows, names, fontsize=min(9, 40 * cell))
    figure.suptitle(f'{clients} clients, {int(summary.num_images.sum())} images')
    figure.savefig(path, dpi=120)
