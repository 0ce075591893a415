"""Trains runs side by side, for as long as there is time."""
import datetime
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fedseg_mm.errors import FedSegError
from fedseg_mm.run_logs import checkpoint_round
from reproduction.run import Run
from reproduction.training import Training

#: Seconds between looks at the trainings, and between lines where no bar is shown.
LOOK, SAY = 0.5, 60


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, as `timeout` and batch systems send it, counts as Ctrl-C."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class SideBySide:
    """Trains runs, ``jobs`` at once, and shows how far they are.

    Args:
        runs (Sequence[Run]): The runs that are not complete, in order.
        jobs (int): Trainings at once.
        minutes (float, optional): When to stop. Defaults to None: never.
        amp (bool): Whether to train in mixed precision. Defaults to False.
        prepare (Callable[[Run], None]): Called before a run starts.
        finish (Callable[[Run], object]): Called when a run is trained to the
            end.
    """

    def __init__(self, runs: Sequence[Run], jobs: int, minutes: float | None = None, amp: bool = False, *,
                 prepare: Callable[[Run], None], finish: Callable[[Run], object]) -> None:
        self.waiting = list(runs)
        self.jobs, self.minutes, self.amp = jobs, minutes, amp
        self.prepare, self.finish = prepare, finish
        self.trainings: list[Training] = []
        #: Runs that were worked on.
        self.begun: list[Run] = []
        self.failures: list[str] = []
        self.trained = 0  # rounds of ended trainings in this call

    def go(self) -> str | None:
        """Train until nothing is left, the time is over, or someone interrupts.

        Returns:
            str or None: Why it stopped early, if it did.
        """
        self.start = time.monotonic()
        said = self.start
        self.from_round: dict[Run, int] = {}
        columns = TextColumn('{task.description}'), BarColumn(), TextColumn('{task.completed}/{task.total} rounds')
        with _terminated_as_interrupted(), Progress(
                *columns, TextColumn('{task.fields[left]}'), transient=True,
                disable=not sys.stdout.isatty()) as self.bars:
            self.all = self.bars.add_task('all runs', total=self._rounds_left(), left='')
            self.tasks: dict[Run, TaskID] = {}
            try:
                while self.waiting or self.trainings:
                    if self.minutes is not None and time.monotonic() - self.start >= 60 * self.minutes:
                        return f'the {self.minutes:g} minutes are over'
                    while self.waiting and len(self.trainings) < self.jobs:
                        self._attempt(self._begin, self.waiting.pop(0))
                    time.sleep(LOOK)
                    for training in [one for one in self.trainings if one.ended]:
                        self._attempt(self._end, training)
                    self._show()
                    if self.bars.disable and time.monotonic() - said >= SAY:
                        said = time.monotonic()
                        print(self._sentence(), flush=True)
            except KeyboardInterrupt:
                return 'interrupted'
            finally:  # also if this program fails: nothing is left behind that goes on
                for training in self.trainings:
                    training.stop()
        return None

    def _attempt(self, step: Callable, subject) -> None:
        try:
            step(subject)
        except FedSegError as error:
            self.failures.append(str(error))
            self.bars.console.print(f'{error}', markup=False, highlight=False, soft_wrap=True)

    def _begin(self, run: Run) -> None:
        self.begun.append(run)
        self.prepare(run)
        done = checkpoint_round(run.folder)
        training = Training(run, self.amp)
        self.trainings.append(training)
        self.from_round[run] = done
        self.tasks[run] = self.bars.add_task(run.name, total=run.rounds, completed=done, left='')
        self._say(f'{run.name} {"goes on after" if done else "starts with"} round {done or 1} of {run.rounds}; its log '
                  f'is {run.log}')

    def _end(self, training: Training) -> None:
        run = training.run
        self.trainings.remove(training)
        self.bars.remove_task(self.tasks.pop(run))
        try:
            self.trained += training.rounds - self.from_round[run]
            training.check()
            self.finish(run)
            self._say(f'{run.name} is complete: {run.result_file}')
        finally:
            training.lock.close()

    # --- how far it is ------------------------------------------------------
    def _rounds_left(self) -> int:
        return (sum(run.rounds - checkpoint_round(run.folder) for run in self.waiting) +
                sum(one.run.rounds - one.rounds for one in self.trainings))

    def _time_left(self) -> str:
        """From the rounds of this call, as rounds of all runs took alike."""
        trained = self.trained + sum(max(0, one.rounds - self.from_round[one.run]) for one in self.trainings)
        if not trained:
            return ''
        seconds = (time.monotonic() - self.start) / trained * self._rounds_left()
        return f'about {datetime.timedelta(seconds=int(seconds))} left'

    def _show(self) -> None:
        for training in self.trainings:
            self.bars.update(self.tasks[training.run], completed=training.rounds)
        total = self.bars.tasks[0].total or 0
        self.bars.update(self.all, completed=total - self._rounds_left(), left=self._time_left())

    def _say(self, sentence: str) -> None:
        self.bars.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def _sentence(self) -> str:
        running = ', '.join(f'{one.run.name} {one.rounds}/{one.run.rounds}' for one in self.trainings)
        left = self._time_left() or 'the time left is not known yet'
        return f'Rounds: {running}; {len(self.waiting)} waiting; {left}'
