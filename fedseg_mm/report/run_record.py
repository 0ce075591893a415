"""What a run has left in its work dir."""
import statistics
from functools import cached_property
from pathlib import Path

from fedseg_mm.errors import FedSegError
from fedseg_mm.files import parse, read_bytes
from fedseg_mm.report.settings import read_settings
from fedseg_mm.report.test_record import TestRecord
from fedseg_mm.run_logs import RunLogs
from fedseg_mm.validation import fits, is_figure, is_text

#: Evaluations that the mean at the end is over, as in FedSeg's paper.
LAST = 5


class RunRecord:
    """Reads the logs, settings and partition of one run.

    Args:
        folder (Path): Its work dir.
        name (str): What the report calls it.

    Raises:
        FedSegError: It is no work dir of a federated run.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        if not folder.is_dir():
            raise FedSegError(f'there is no work dir {folder}')
        logs = RunLogs(folder)
        if not logs.rounds:
            raise FedSegError(f'{folder} holds no log of a federated run (*/vis_data/rounds.json): name the work dir '
                              'of a training that has finished a round')
        #: round -> its line of rounds.json
        self.rounds: dict[int, dict] = dict(sorted(logs.rounds.items()))
        #: round -> figure -> percent
        self.evaluations: dict[int, dict[str, float]] = {
            number: {name: value for name, value in line.items() if name not in ('data_time', 'time', 'step')
                     and is_figure(value)}
            for number, line in sorted(logs.evaluations.items())}
        #: round -> class -> IoU in percent
        self.class_iou: dict[int, dict[str, float]] = dict(sorted(logs.class_iou.items()))

    @cached_property
    def settings(self) -> dict[str, object]:
        """Dotted keys of the config and their values; empty where there is no readable config."""
        paths = sorted(self.folder.glob('*.py'), key=lambda path: path.stat().st_mtime)
        try:
            return read_settings(paths[-1]) if paths else {}
        except FedSegError:
            return {}

    @cached_property
    def partition(self) -> dict:
        """The manifest; empty where there is none."""
        try:
            manifest = parse(read_bytes(self.folder / 'partition.json').decode())
        except (OSError, ValueError):
            return {}
        return manifest if fits(manifest, {'class_names?': [is_text], 'clients?': [{'classes?': [is_text]}]}) else {}

    @property
    def method(self) -> str:
        """The algorithm, and its losses beside cross-entropy."""
        algorithm = str(self.settings.get('federated.algorithm.type', 'FedAvg'))
        losses = {str(value) for key, value in self.settings.items() if key.startswith('model.decode_head.loss_decode')
                  and key.endswith('.type')}
        return ' + '.join([algorithm, *sorted(losses)])

    @property
    def planned_rounds(self) -> int | None:
        """Those of the config."""
        rounds = self.settings.get('train_cfg.max_rounds')
        return rounds if isinstance(rounds, int) else None

    @property
    def seed(self) -> object:
        return self.settings.get('randomness.seed')

    @cached_property
    def tested(self) -> TestRecord:
        """What tools/test.py has left in the work dir, or in ``test/`` of it."""
        return TestRecord(self.folder)

    @cached_property
    def unannotated_classes(self) -> list[str]:
        """Classes that no client annotates."""
        annotated = {name for client in self.partition.get('clients', ()) for name in client.get('classes', ())}
        return [name for name in self.partition.get('class_names', ()) if name not in annotated]

    def best(self, figure: str = 'mIoU') -> tuple[float, int] | None:
        """The greatest value of a figure, and the round after which it was reached."""
        values = [(line[figure], -number) for number, line in self.evaluations.items() if figure in line]
        return (max(values)[0], -max(values)[1]) if values else None

    def last(self, figure: str = 'mIoU') -> float | None:
        values = [line[figure] for line in self.evaluations.values() if figure in line]
        return values[-1] if values else None

    def mean_of_last(self, figure: str = 'mIoU') -> float | None:
        """The mean of the last five evaluations; None where there are fewer."""
        values = [line[figure] for line in self.evaluations.values() if figure in line]
        return statistics.mean(values[-LAST:]) if len(values) >= LAST else None

    def at_the_end(self, figure: str) -> float | None:
        """The mean of the last five evaluations, or the last one where there are fewer."""
        mean = self.mean_of_last(figure)
        return self.last(figure) if mean is None else mean

    @property
    def seconds(self) -> float:
        """Seconds of training, without evaluations."""
        return sum(line['time'] for line in self.rounds.values())

    @property
    def bytes(self) -> int:
        """Bytes up and down."""
        return sum(line['bytes_up'] + line['bytes_down'] for line in self.rounds.values())

    @property
    def epsilon(self) -> dict[int, float]:
        """round -> epsilon after it, in a run that protects clients."""
        spent = {number: (line.get('privacy') or {}).get('epsilon') for number, line in self.rounds.items()}
        return {number: value for number, value in spent.items() if isinstance(value, (int, float))}

    @property
    def privacy(self) -> str:
        """The guarantee of the last round in a few words; empty where there is none."""
        last = next((line['privacy'] for line in reversed(self.rounds.values()) if line.get('privacy')), None)
        if not isinstance(last, dict) or 'delta' not in last:
            return ''
        epsilon = 'infinite' if last.get('epsilon') is None else f'{last["epsilon"]:.4g}'
        none = ', but noise derived from the seed gives no protection against anyone who knows it'
        return (f'Client-level differential privacy: epsilon {epsilon} at delta {last["delta"]:g} '
                f'({last.get("adjacency")}){none if last.get("reproducible") else ""}.')

    @cached_property
    def left_out(self) -> list[dict]:
        """Updates that did not reach the global model: round, name of the client, and why."""
        return [dict(round=number, name=str(entry.get('name', entry['client'])),
                     reason=entry.get('reason', 'its update held NaN or infinite values'))
                for number, line in self.rounds.items() for entry in line['clients'] if not entry.get('used', True)]

    @cached_property
    def clients(self) -> list[dict]:
        """Per client that took part: name, rounds, images, first and last loss, seconds per round, left out.

        Losses are the means of the client's first and last round; ``left_out``
        counts rounds whose update was not used.
        """
        found: dict[int, list[dict]] = {}
        for line in self.rounds.values():
            for entry in line['clients']:
                found.setdefault(entry['client'], []).append(entry)
        return [dict(
            name=str(entries[-1].get('name', client)), rounds=len(entries),
            images=next((one['images'] for one in reversed(entries) if 'images' in one), None),
            first_loss=next((one['loss'] for one in entries if one.get('loss') is not None), None),
            last_loss=next((one['loss'] for one in reversed(entries) if one.get('loss') is not None), None),
            seconds=statistics.mean(one['time'] for one in entries),
            left_out=sum(not one.get('used', True) for one in entries)) for client, entries in sorted(found.items())]
