"""The report: one HTML page with its pictures in it."""
import base64
import datetime
import statistics
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from fedseg_mm.evaluation.confusion_matrix import shown_percent
from fedseg_mm.files import atomic_write
from fedseg_mm.report.pictures import (
    draw_classes,
    draw_clients,
    draw_curves,
    draw_predictions,
    draw_privacy,
    draw_rounds,
)
from fedseg_mm.report.published import published_beside
from fedseg_mm.report.run_record import RunRecord
from fedseg_mm.report.settings import differences
from fedseg_mm.version import __version__
from fedseg_mm.visualization import draw_confusion

NONE = '–'
#: Updates that were not used, of which the page says why.
MOST_LEFT_OUT = 200


def write_report(runs: Sequence[RunRecord], page: Path) -> Path:
    """Write the page, and its pictures as PNG files beside it.

    Args:
        runs (Sequence[RunRecord]): The runs, in the order of the page.
        page (Path): The HTML file to write.

    Returns:
        Path: The file. It opens without a network, and nothing in it runs.
    """
    from jinja2 import Environment
    pictures = page.with_suffix('')
    pictures.mkdir(parents=True, exist_ok=True)
    template = files('fedseg_mm.report').joinpath('page.html.jinja').read_text(encoding='utf-8')
    html = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template).render(
        title=', '.join(run.name for run in runs),
        written=f'{datetime.datetime.now():%Y-%m-%d %H:%M}', version=__version__,
        table=[_line(run) for run in runs], seeds=_over_seeds(runs),
        curves=_embedded(draw_curves(runs, pictures / 'curves.png')),
        annotated=any('mIoU_annotated' in line for run in runs for line in run.evaluations.values()),
        published=any(published_beside(run.settings) for run in runs),
        predictions=_embedded(draw_predictions(runs, pictures / 'predictions.png')),
        rounds=_embedded(draw_rounds(runs, pictures / 'rounds.png')),
        privacy=_embedded(draw_privacy(runs, pictures / 'privacy.png')),
        names=[run.name for run in runs], settings=differences([run.settings for run in runs]),
        runs=[dict(name=run.name, folder=str(run.folder), clients=run.clients,
                   left_out=run.left_out[-MOST_LEFT_OUT:], all_left_out=len(run.left_out),
                   unannotated=run.unannotated_classes,
                   classes=_embedded(draw_classes(run, pictures / f'classes_{i}.png')), ended=_ended(run),
                   privacy=run.privacy,
                   picture=_embedded(draw_clients(run, pictures / f'clients_{i}.png')),
                   evaluated=_per_client(run), confusion=_confusion(run, pictures / f'confusion_{i}.png'))
              for i, run in enumerate(runs)])
    with atomic_write(page) as file:
        file.write_text(html, encoding='utf-8')
    return page


def _line(run: RunRecord) -> dict[str, str]:
    """A run's line in the table at the top."""
    best = run.best()
    return dict(
        name=run.name, method=run.method,
        best=f'{best[0]:.2f} (round {best[1]})' if best else NONE,
        last=shown_percent(run.last()), annotated=shown_percent(run.last('mIoU_annotated')),
        published=published_beside(run.settings) or NONE,
        mean=shown_percent(run.mean_of_last()), accuracy=shown_percent(run.last('aAcc')),
        rounds=f'{max(run.rounds)} of {run.planned_rounds}' if run.planned_rounds else str(max(run.rounds)),
        time=str(datetime.timedelta(seconds=round(run.seconds))), bytes=f'{run.bytes / 1e6:,.1f} MB')


def _confusion(run: RunRecord, path: Path) -> str | None:
    """The picture of a run's confusion matrix."""
    if run.tested.confusion is None:
        return None
    draw_confusion(*run.tested.confusion, path)
    return _embedded(path)


#: Figures of a client's evaluation, and what the page calls them.
PER_CLIENT = (('mIoU', 'all classes'), ('mIoU_annotated', 'annotated'), ('mIoU_never_annotated', 'never annotated'))


def _per_client(run: RunRecord) -> dict | None:
    """The table of a run's evaluation for each client."""
    found = run.tested.per_client
    if found is None:
        return None
    kinds = ('own_images', 'test_images')
    lines = [dict(name=client['client'], own_model=client['own_model'], annotated=', '.join(client['annotated']),
                  figures=[shown_percent(client[kind].get(name)) for kind in kinds for name, _ in PER_CLIENT])
             for client in found['clients']]
    spread = [(word, [shown_percent(found['spread'][kind].get(name, {}).get(key)) for kind in kinds
                      for name, _ in PER_CLIENT])
              for key, word in (('mean', 'mean'), ('std', 'standard deviation'), ('min', 'worst'), ('max', 'best'))]
    return dict(heads=[word for _ in kinds for _, word in PER_CLIENT], lines=lines, spread=spread,
                worst=found['spread']['own_images'].get('mIoU', {}).get('worst'))


def _ended(run: RunRecord) -> str:
    """What is to be said of a run that has not come to its end, or was not evaluated."""
    words = []
    if run.planned_rounds and max(run.rounds) < run.planned_rounds:
        words.append(f'It has trained {max(run.rounds)} of {run.planned_rounds} rounds.')
    if not run.evaluations:
        words.append('It has no evaluation yet.')
    return ' '.join(words)


def _over_seeds(runs: Sequence[RunRecord]) -> list[dict[str, str]]:
    """Mean and spread of runs that differ in nothing but the seed."""
    groups: dict[tuple, list[RunRecord]] = {}
    for run in runs:
        if run.settings:
            key = tuple(sorted((name, repr(value)) for name, value in run.settings.items()
                               if name.split('.')[-1] not in ('seed', 'work_dir', 'load_from', 'resume')))
            groups.setdefault(key, []).append(run)
    lines = []
    for group in groups.values():
        if len({repr(run.seed) for run in group}) < 2:
            continue
        values = {figure: [value for run in group if (value := run.at_the_end(figure)) is not None]
                  for figure in ('mIoU', 'aAcc')}
        lines.append(dict(names=', '.join(run.name for run in group), method=group[0].method, **{
            figure: f'{statistics.mean(found):.2f} ± {statistics.stdev(found):.2f}' if len(found) > 1 else NONE
            for figure, found in values.items()}))
    return lines


def _embedded(picture: Path | None) -> str | None:
    """The picture as the address of an image that holds it."""
    return None if picture is None else f'data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}'
