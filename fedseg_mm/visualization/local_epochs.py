"""What more local work per round is worth."""
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

LINES = ('-', '--', ':', '-.')
MARKERS = 'osD^'


def draw_local_epochs(figures: Mapping[str, Mapping[int, Sequence[tuple[float, float]]]], title: str,
                      path: str | Path) -> None:
    """Draw mIoU against local epochs, and against what a run of so many sends.

    A point is the mean over seeds, the bar at it their smallest and largest
    value.

    Args:
        figures (Mapping): Method -> local epochs -> for each seed mIoU (%)
            and MB sent up and down by all clients.
        title (str): What all of these share.
        path (str or Path): The PNG file to write.
    """
    figure = Figure(figsize=(10, 4.2), layout='constrained')
    by_epochs, by_bytes = figure.subplots(1, 2, sharey=True)
    shown = sorted({number for method in figures.values() for number in method})
    for i, (method, points) in enumerate(figures.items()):
        numbers = sorted(points)
        miou = [[value for value, _ in points[number]] for number in numbers]
        means = [sum(values) / len(values) for values in miou]
        bars = [[mean - min(values) for mean, values in zip(means, miou)],
                [max(values) - mean for mean, values in zip(means, miou)]]
        sent = [sum(size for _, size in points[number]) / len(points[number]) for number in numbers]
        for axes, places in ((by_epochs, numbers), (by_bytes, sent)):
            axes.errorbar(places, means, bars, linestyle=LINES[i % len(LINES)], marker=MARKERS[i % len(MARKERS)],
                          color=f'C{i}', label=method, capsize=3)
    by_epochs.set_xscale('log', base=2)
    by_epochs.set_xticks(shown, [str(number) for number in shown])
    by_epochs.set(xlabel='local epochs per round, with as many steps in all', ylabel='mIoU (%)')
    by_bytes.set_xscale('log')
    by_bytes.set_xlabel('sent up and down by all clients (MB)')
    for axes in (by_epochs, by_bytes):
        axes.grid(alpha=0.3)
    by_epochs.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
