"""What a run has logged, over all its interruptions."""
import json
from collections.abc import Iterator
from pathlib import Path


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
        self.evaluations = {line['step']: line for line in self._lines('scalars.json') if 'mIoU' in line}
        #: round -> class -> IoU in percent
        self.class_iou = {line['step']: {name.removeprefix('IoU/'): value for name, value in line.items()
                                         if name.startswith('IoU/')}
                          for line in self._lines('scalars.json') if any(name.startswith('IoU/') for name in line)}
        #: round -> how many models were evaluated, where it is one per client
        self.models = {line['round']: len(line['clients']) for line in self._lines('clients.json')}

    def _lines(self, name: str) -> Iterator[dict]:
        for path in sorted(self.folder.glob(f'*/vis_data/{name}')):
            yield from read_lines(path)


def read_lines(path: Path) -> Iterator[dict]:
    """The lines of a log; a kill may have cut off the last one."""
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


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
