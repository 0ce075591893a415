"""What clients see: images, and labels as the federation gives them to the client."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch

from fedseg_mm.datasets.label_scan import plain_datasets
from fedseg_mm.datasets.labels import UNANNOTATED, VOID
from fedseg_mm.datasets.partition_summary import PartitionSummary
from fedseg_mm.datasets.transforms import MaskToClient, RemapUnannotated
from fedseg_mm.visualization.figure import Figure

#: Clients that are drawn.
MOST_CLIENTS = 12
GREY, BLACK = (214, 214, 214), (0, 0, 0)


def client_view(dataset, index: int, classes: Sequence[int], unannotated: int | None) -> tuple[np.ndarray, np.ndarray]:
    """An image and its label, as a client trains on them before any augmentation.

    Args:
        dataset (BaseDataset or ConcatDataset): With its train pipeline.
        index (int): The image.
        classes (Sequence[int]): The client's annotated classes.
        unannotated (int, optional): What its files label with when they mean
            "unannotated".

    Returns:
        tuple[np.ndarray, np.ndarray]: RGB (H, W, 3), and the label (H, W) with
        254 for unannotated pixels and 255 for void.
    """
    part = next(part for part, first, last in _places(dataset) if first <= index < last)
    first = next(first for one, first, _ in _places(dataset) if one is part)
    results = {**part.get_data_info(index - first), 'annotated_classes': classes, 'unannotated_value': unannotated}
    for transform in part.pipeline.transforms:
        results = transform(results)
        if 'img' in results and 'gt_seg_map' in results:
            break
    results = MaskToClient()(RemapUnannotated()(results))
    image = np.asarray(results['img'])
    image = np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image[..., :3]
    return np.ascontiguousarray(image[..., ::-1]).astype(np.uint8), results['gt_seg_map']


def _places(dataset) -> list[tuple]:
    """The plain data sets with the indices that they begin and end at."""
    parts = plain_datasets(dataset)
    ends = np.cumsum([len(part) for part in parts]).tolist()
    return list(zip(parts, [0, *ends], ends))


def draw_client_views(summary: PartitionSummary, dataset, number: int, path: str | Path) -> int:
    """Draw images of clients beside their labels; unannotated pixels are hatched.

    Args:
        summary (PartitionSummary): The partition.
        dataset (BaseDataset or ConcatDataset): What is partitioned.
        number (int): Images of each client: those that show most of what it
            annotates.
        path (str or Path): The PNG file to write.

    Returns:
        int: Clients that are drawn: all, or the first of many.
    """
    palette = list((dataset.metainfo or {}).get('palette') or [])
    colours = np.zeros((256, 3), np.uint8)
    colours[:len(summary.class_names)] = (palette + _some_colours(len(summary.class_names)))[:len(summary.class_names)]
    colours[UNANNOTATED], colours[VOID] = GREY, BLACK
    clients = summary.partition.clients[:MOST_CLIENTS]
    figure = Figure(figsize=(4.2 * number + 0.8, 1.9 * len(clients) + 0.9), layout='constrained')
    grid = figure.subplots(len(clients), 2 * number, squeeze=False)
    for row, (client, shard) in zip(grid, enumerate(clients)):
        shows = summary.class_counts[list(shard.indices)][:, list(shard.classes)].sum(1)
        chosen = [shard.indices[place] for place in np.argsort(-shows, kind='stable')[:number]]
        for axes in row:
            axes.set_axis_off()
        for pair, index in zip(zip(row[::2], row[1::2]), chosen):
            image, label = client_view(dataset, index, shard.classes, shard.unannotated)
            pair[0].imshow(image)
            pair[1].imshow(colours[label], interpolation='nearest')
            hidden = label == UNANNOTATED
            if hidden.any() and not hidden.all():
                pair[1].contourf(hidden, levels=[0.5, 1.5], colors='none', hatches=['////'])
        names = ', '.join(summary.class_names[one] for one in shard.classes)
        row[0].set_title(f'{shard.name or client}: {names if len(names) < 60 else f"{len(shard.classes)} classes"}',
                         loc='left', fontsize=9)
    used = sorted({one for shard in clients for one in shard.classes})
    patches = [Patch(color=tuple(colours[one] / 255), label=summary.class_names[one]) for one in used[:30]]
    patches += [Patch(facecolor=tuple(np.array(GREY) / 255), hatch='////', label='unannotated'),
                Patch(color='black', label='void')]
    figure.legend(handles=patches, loc='outside lower center', ncols=6, fontsize=8, frameon=False)
    figure.savefig(path, dpi=90)
    return len(clients)


def _some_colours(number: int) -> list[list[int]]:
    """Colours for classes of a data set without a palette."""
    hues = np.arange(number)[:, None] * 0.618034 + np.array([0, 1 / 3, 2 / 3])
    return (255 * (0.25 + 0.7 * abs(hues % 1 * 2 - 1))).astype(int).tolist()
