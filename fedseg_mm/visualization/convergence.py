"""How fast methods learn, in rounds and in bytes."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

MEGA = 1e6


def draw_convergence(curves: Mapping[str, Sequence[np.ndarray]], bounds: Mapping[str, float], title: str,
                     path: str | Path) -> None:
    """Draw mIoU against rounds, and against what was sent up and down.

    A line is the mean over seeds, the band around it their smallest and
    largest value.

    Args:
        curves (Mapping[str, Sequence[np.ndarray]]): For each method and seed
            the evaluations, (E, 3): round, bytes so far, mIoU (%).
        bounds (Mapping[str, float]): mIoU (%) of what is no federation, drawn
            as level lines.
        title (str): What all of these share.
        path (str or Path): The PNG file to write.
    """
    figure = Figure(figsize=(12, 4.8), layout='constrained')
    by_round, by_bytes = figure.subplots(1, 2, sharey=True)
    for i, (name, seeds) in enumerate(curves.items()):
        shared = sorted(set.intersection(*(set(seed[:, 0]) for seed in seeds)))  # rounds that all have evaluated
        figures = np.stack([seed[np.isin(seed[:, 0], shared)] for seed in seeds])
        rounds, sent, miou = figures.mean(0).T
        label = name if len(seeds) == 1 else f'{name} ({len(seeds)} seeds)'
        for axes, place in ((by_round, rounds), (by_bytes, sent / MEGA)):
            axes.plot(place, miou, marker='.', linewidth=1.4, color=f'C{i}', label=label)
            if len(seeds) > 1:
                axes.fill_between(place, figures[..., 2].min(0), figures[..., 2].max(0), color=f'C{i}', alpha=0.15,
                                  linewidth=0)
    for style, (name, miou) in zip((':', '--', '-.') * len(bounds), bounds.items()):
        for axes in (by_round, by_bytes):
            axes.axhline(miou, color='0.4', linestyle=style, linewidth=1.2, label=name)
    by_round.set_xlabel('round')
    by_round.set_ylabel('mIoU (%)')
    by_bytes.set_xlabel('sent up and down by all clients so far (MB)')
    for axes in (by_round, by_bytes):
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    handles, labels = by_round.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside right center', fontsize=9, frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
