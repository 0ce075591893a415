"""The report's pictures; they can be told apart in black and white too."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedseg_mm.report.run_record import RunRecord
from fedseg_mm.visualization import draw_panels
from fedseg_mm.visualization.figure import Figure

LINES = ('-', '--', ':', '-.')
MARKERS = 'osD^vPX*'
#: Clients whose bars are drawn; of more, a histogram.
MOST_BARS = 60
#: Evaluations whose rounds and figures a heat map has room for.
MOST_ROUNDS = 25


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=100)
    return path


def _style(i: int, run: RunRecord) -> dict:
    """How the line of a run looks in every picture."""
    return dict(linestyle=LINES[i % len(LINES)], linewidth=1.2, color=f'C{i % 10}', label=run.name)


def _count_whole(axis) -> None:
    """There is no round 0.5, also not on the axis of a short run."""
    axis.get_major_locator().set_params(integer=True)


def draw_curves(runs: Sequence[RunRecord], path: Path) -> Path | None:
    """mIoU and pixel accuracy over rounds, and mIoU over bytes."""
    runs = [run for run in runs if run.evaluations]
    if not runs:
        return None
    figure = Figure(figsize=(11, 3.8), layout='constrained')
    panels = figure.subplots(1, 3)
    for i, run in enumerate(runs):
        rounds = list(run.evaluations)
        sent = np.cumsum([line['bytes_up'] + line['bytes_down'] for line in run.rounds.values()])
        so_far = dict(zip(run.rounds, sent / 1e6))
        style = dict(marker=MARKERS[i % len(MARKERS)], markersize=4, **_style(i, run))
        for axes, figure_name in zip(panels, ('mIoU', 'aAcc')):
            axes.plot(rounds, [run.evaluations[number].get(figure_name, np.nan) for number in rounds], **style)
        panels[2].plot([so_far.get(number, np.nan) for number in rounds],
                       [run.evaluations[number].get('mIoU', np.nan) for number in rounds], **style)
    for axes, what, over in zip(panels, ('mIoU (%)', 'pixel accuracy (%)', 'mIoU (%)'), (
            'round', 'round', 'sent up and down so far (MB)')):
        axes.set(xlabel=over, ylabel=what)
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
        axes.grid(alpha=0.3)
    for axes in panels[:2]:
        _count_whole(axes.xaxis)
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', ncols=3, frameon=False)
    return _save(figure, path)


def draw_classes(run: RunRecord, path: Path) -> Path | None:
    """IoU of every class over the evaluations of one run, as a heat map."""
    if not run.class_iou:
        return None
    rounds = list(run.class_iou)
    names = list(run.partition.get('class_names') or dict.fromkeys(
        name for line in run.class_iou.values() for name in line))
    values = np.array([[run.class_iou[number].get(name, np.nan) for number in rounds] for name in names])
    figure = Figure(figsize=(11, 1.6 + 0.26 * len(names)), layout='constrained')
    axes = figure.subplots()
    image = axes.imshow(values, aspect='auto', cmap='cividis', vmin=0, vmax=100, interpolation='nearest')
    some = range(0, len(rounds), -(-len(rounds) // MOST_ROUNDS))
    axes.set_xticks(some, [str(rounds[place]) for place in some])
    axes.set_yticks(range(len(names)), [f'{name} (nobody annotates it)' if name in run.unannotated_classes else name
                                        for name in names])
    axes.set_xlabel('round')
    if len(rounds) <= MOST_ROUNDS:
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, '–' if np.isnan(value) else f'{value:.0f}', ha='center', va='center', fontsize=8,
                      color='black' if value > 55 else 'white')
    figure.colorbar(image, label='IoU (%)')
    return _save(figure, path)


def draw_clients(run: RunRecord, path: Path) -> Path | None:
    """Participation, loss and seconds of the clients of one run."""
    clients = run.clients
    if not clients:
        return None
    figure = Figure(figsize=(11, 3.6), layout='constrained')
    for axes, key, what in zip(figure.subplots(1, 3), ('rounds', 'last_loss', 'seconds'), (
            'rounds taken part in', 'mean loss of its last round', 'seconds per round')):
        values = [client[key] if client[key] is not None else np.nan for client in clients]
        if len(clients) > MOST_BARS:
            axes.hist([value for value in values if np.isfinite(value)], bins=30, color='0.45')
            axes.set(xlabel=what, ylabel='clients')
        else:
            axes.bar(range(len(clients)), values, color='0.45')
            axes.set_xticks(range(len(clients)), [client['name'][:12] for client in clients], rotation=90, fontsize=7)
            axes.set(xlabel='client', ylabel=what)
            axes.grid(axis='y', alpha=0.3)
        if key == 'rounds':
            _count_whole(axes.xaxis if len(clients) > MOST_BARS else axes.yaxis)
    return _save(figure, path)


#: Images whose predictions are drawn.
MOST_IMAGES = 4


def draw_predictions(runs: Sequence[RunRecord], path: Path) -> Path | None:
    """What the runs predict on the same test images, beside the label; of runs that were tested."""
    runs = [run for run in runs if run.tested.predictions]
    if not runs:
        return None
    first = runs[0].tested
    names = [name for name in first.predictions if all(name in run.tested.predictions for run in runs)]
    palette, classes = first.classes.get('palette') or [], first.classes.get('names') or []
    if not names or len(palette) < len(classes):
        return None
    rows = []
    for name in names[:MOST_IMAGES]:
        image, label, _ = first.predictions[name]
        rows.append((image, *([] if label is None else [label]),
                     *(run.tested.predictions[name][2] for run in runs)))
    titles = ['image', *(['label'] if len(rows[0]) > 1 + len(runs) else []), *(run.name[-24:] for run in runs)]
    if any(len(row) != len(titles) for row in rows):
        return None
    draw_panels(rows, titles, classes, palette, path)
    return path


def draw_privacy(runs: Sequence[RunRecord], path: Path) -> Path | None:
    """Epsilon over rounds, and mIoU over epsilon, of the runs that protect clients."""
    runs = [run for run in runs if run.epsilon]
    if not runs:
        return None
    figure = Figure(figsize=(11, 3.2), layout='constrained')
    spent, bought = figure.subplots(1, 2)
    for i, run in enumerate(runs):
        style = _style(i, run)
        spent.plot(list(run.epsilon), list(run.epsilon.values()), **style)
        found = [(run.epsilon[number], line['mIoU']) for number, line in run.evaluations.items()
                 if number in run.epsilon and 'mIoU' in line]
        if found:
            bought.plot(*zip(*found), marker=MARKERS[i % len(MARKERS)], markersize=4, **style)
    spent.set(xlabel='round', ylabel='epsilon')
    bought.set(xlabel='epsilon', ylabel='mIoU (%)')
    _count_whole(spent.xaxis)
    for axes in (spent, bought):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.legend(*spent.get_legend_handles_labels(), loc='outside lower center', ncols=3, frameon=False)
    return _save(figure, path)


def draw_rounds(runs: Sequence[RunRecord], path: Path) -> Path:
    """Seconds and bytes of every round."""
    figure = Figure(figsize=(11, 3.2), layout='constrained')
    seconds, sent = figure.subplots(1, 2)
    for i, run in enumerate(runs):
        style = _style(i, run)
        seconds.plot(list(run.rounds), [line['time'] for line in run.rounds.values()], **style)
        sent.plot(list(run.rounds), [(line['bytes_up'] + line['bytes_down']) / 1e6 for line in run.rounds.values()],
                  **style)
    for axes, what in ((seconds, 'training time of the round (s)'), (sent, 'sent up and down (MB)')):
        axes.set(xlabel='round', ylabel=what)
        _count_whole(axes.xaxis)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.legend(*seconds.get_legend_handles_labels(), loc='outside lower center', ncols=3, frameon=False)
    return _save(figure, path)
