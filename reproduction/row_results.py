"""The results of one row of a table, in one file that a person can read."""
import fcntl
import json
from pathlib import Path

from fedseg_mm.errors import FedSegError
from fedseg_mm.files import atomic_write

#: What tells the runs of a row apart.
KEY = ('split', 'seed', 'options')


class RowResults:
    """``RESULTS/PROTOCOL/ROW.json``: a line per run, with its settings first and its figures beside them.

    Args:
        path (Path): The file, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict]:
        """All runs; none if there is no file.

        Raises:
            FedSegError: The file cannot be read.
        """
        if not self.path.is_file():
            return []
        try:
            runs = json.loads(self.path.read_text(encoding='utf-8'))['runs']
            for run in runs:
                _ = [run[name] for name in (*KEY, 'row', 'config_hash', 'mean_of_last_five')]
        except (ValueError, KeyError, TypeError) as error:
            raise FedSegError(f'{self.path} does not hold the results of a row: remove it, and run the row '
                              'again') from error
        return runs

    def find(self, split: str | None, seed: int, options: list[str]) -> dict | None:
        """The run with these settings, if it is there."""
        return next((run for run in self.read() if [run[name] for name in KEY] == [split, seed, options]), None)

    def put(self, result: dict) -> None:
        """Add a run, in the place of one with the same settings; also while others do."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (self.path.parent / '.lock').open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            key = [result[name] for name in KEY]
            runs = [run for run in self.read() if [run[name] for name in KEY] != key] + [result]
            runs.sort(key=lambda run: (run['options'], run['split'] or '', run['seed']))
            lines = ',\n  '.join(json.dumps(run, ensure_ascii=False) for run in runs)
            with atomic_write(self.path) as file:
                file.write_text(f'{{"row": {json.dumps(result["row"])}, "runs": [\n  {lines}\n]}}\n', encoding='utf-8')
