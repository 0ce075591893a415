"""A progress bar on a terminal: round, client, time left."""
import atexit
import datetime
import sys

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

    def before_train(self, runner) -> None:
        atexit.register(self.after_round, runner)  # an interrupted bar would leave the terminal without a cursor

    def before_round(self, runner, cohort, broadcast) -> None:
        eta = runner.message_hub.runtime_info.get('eta')
        left = '' if eta is None else f' · {datetime.timedelta(seconds=int(eta))} left'
        self.progress = Progress(
            TextColumn(f'round {runner.epoch + 1}/{runner.max_epochs}'), BarColumn(),
            TextColumn('client {task.completed}/{task.total}' + left), transient=True,
            disable=not sys.stdout.isatty())
        # of several processes, this one shows the clients that it trains
        self.task = self.progress.add_task('', total=-(-len(cohort) // get_world_size()))
        self.progress.start()

    def after_client(self, runner, update) -> None:
        if self.progress is not None:
            self.progress.advance(self.task)

    def after_round(self, runner) -> None:
        if self.progress is not None:
            self.progress.stop()
