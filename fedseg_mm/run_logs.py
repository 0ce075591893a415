"""What a run has logged, over all its interruptions."""
from collections.abc import Iterator
from pathlib import Path

from fedseg_mm.errors import FedSegError
from fedseg_mm.files import parse, read_bytes
from fedseg_mm.validation import fits, is_count, is_figure, is_text


def _or_none(look):
    return lambda value: value is None or look(value)


def _is_duration(value) -> bool:
    return is_figure(value) and 0 <= value < 1e9


#: What is read of a line of each log; there is more in it.
_LINES: dict[str, dict] = {
    'rounds.json': {
        'round': is_count, 'cohort': [is_count], 'time': _is_duration, 'images': is_count, 'bytes_up': is_count,
        'bytes_down': is_count, 'privacy?': _or_none(lambda value: fits(value, {
            'epsilon?': _or_none(is_figure), 'delta?': is_figure, 'adjacency?': is_text})),
        'clients': [{'client': is_count, 'time': _is_duration, 'name?': is_text, 'images?': is_count,
                     'loss?': _or_none(is_figure), 'reason?': is_text}]},
    'scalars.json': {'step?': is_count},
    'clients.json': {'round': is_count, 'clients': [lambda value: True]},
}


class RunLogs:
    """Reads MMEngine's logs in all folders that a run and its resumptions left.

    Rounds behind the last checkpoint are trained again after an interruption:
    of a round, the last entry counts. MMEngine names folders by time.

    Args:
        folder (Path): The work dir.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: round -> its line in ``rounds.json``
        self.rounds = {line['round']: line for line in self._lines('rounds.json')}
        #: round -> metrics of its evaluation, with ``time``, seconds per batch
        self.evaluations = {line['step']: line for line in self._lines('scalars.json')
                            if 'mIoU' in line and 'step' in line}
        #: round -> class -> IoU in percent
        self.class_iou = {line['step']: {name.removeprefix('IoU/'): value for name, value in line.items()
                                         if name.startswith('IoU/') and is_figure(value)}
                          for line in self._lines('scalars.json')
                          if 'step' in line and any(name.startswith('IoU/') for name in line)}
        #: round -> how many models were evaluated, where it is one per client
        self.models = {line['round']: len(line['clients']) for line in self._lines('clients.json')}

    def _lines(self, name: str) -> Iterator[dict]:
        for path in sorted(self.folder.glob(f'*/vis_data/{name}')):
            yield from read_lines(path)


def read_lines(path: Path) -> Iterator[dict]:
    """The lines of a log; a kill may have cut off the last one.

    Raises:
        FedSegError: One of them was not written by a run.
    """
    for number, text in enumerate(read_bytes(path).decode(errors='replace').splitlines(), 1):
        try:
            line = parse(text)
        except ValueError:
            continue
        if not fits(line, _LINES[path.name]):
            raise FedSegError(f'line {number} of {path} is none that a run has written: take it out')
        yield line


def last_checkpoint(folder: Path) -> Path | None:
    """What ``--resume`` would go on from in a work dir."""
    pointer = folder / 'last_checkpoint'
    if not pointer.is_file():
        return None
    path = folder / Path(pointer.read_text().strip()).name
    return path if path.is_file() else None


def checkpoint_round(folder: Path) -> int:
    """Rounds behind a work dir's last checkpoint; 0 if there is none."""
    path = last_checkpoint(folder)
    return int(path.stem.split('_')[-1]) if path else 0


def logged_round(folder: Path, since: float) -> int:
    """The last round that was finished, in the part of a run that began at a time (of the clock of files)."""
    paths = [path for path in folder.glob('*/vis_data/rounds.json') if path.stat().st_mtime >= since]
    lines = list(read_lines(max(paths))) if paths else []
    return lines[-1]['round'] if lines else checkpoint_round(folder)
