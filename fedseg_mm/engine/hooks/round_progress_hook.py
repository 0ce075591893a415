"""A progress bar on a terminal: round, client, time left."""
import atexit
import datetime
import sys
import time

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from rich.progress import BarColumn, Progress, TextColumn


@HOOKS.register_module()
class RoundProgressHook(Hook):
    """Shows the clients of the current round as a bar, and the time left for all rounds.

    The bar is erased at the end of each round, before MMEngine logs. Nothing
    is shown where the output is not a terminal.
    """

    progress: Progress | None = None
    #: When the training began or went on, on the monotonic clock (s), and after how many rounds.
    begun: tuple[float, int]

    def before_train(self, runner) -> None:
        self.begun = time.monotonic(), runner.epoch
        atexit.register(self.after_round, runner)  # an interrupted bar would leave the terminal without a cursor

    def before_round(self, runner, cohort, broadcast) -> None:
        # of several processes, this one shows the clients that it trains
        self.clients, self.done = -(-len(cohort) // get_world_size()), 0
        self.progress = Progress(
            TextColumn(f'round {runner.epoch + 1}/{runner.max_epochs}'), BarColumn(),
            TextColumn('client {task.completed}/{task.total}{task.fields[left]}'), transient=True,
            disable=not sys.stdout.isatty())
        self.task = self.progress.add_task('', total=self.clients, left=self._left(runner))
        self.progress.start()

    def after_client(self, runner, update) -> None:
        if self.progress is not None:
            self.done += 1
            self.progress.update(self.task, advance=1, left=self._left(runner))

    def _left(self, runner) -> str:
        """The time left for all rounds, at the pace since the start, evaluations included."""
        start, first = self.begun
        rounds = runner.epoch + self.done / max(self.clients, 1) - first
        if not rounds:
            return ''
        seconds = (time.monotonic() - start) / rounds * (runner.max_epochs - first - rounds)
        return f' · {datetime.timedelta(seconds=round(seconds))} left'

    def after_round(self, runner) -> None:
        if self.progress is not None:
            self.progress.stop()
