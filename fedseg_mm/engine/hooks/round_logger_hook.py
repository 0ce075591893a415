"""MMEngine's logger, one line per round and none per evaluated image."""
from mmengine.hooks import LoggerHook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RoundLoggerHook(LoggerHook):
    """Logs every ``interval`` rounds, and an evaluation every ``eval_interval`` batches.

    Args:
        interval (int): Rounds between log lines. Defaults to 1.
        eval_interval (int): Evaluated batches between log lines.
            Defaults to 100.
        kwargs: Further arguments of MMEngine's LoggerHook.
    """

    def __init__(self, interval: int = 1, eval_interval: int = 100, **kwargs) -> None:
        super().__init__(interval=interval, **kwargs)
        self.eval_interval = eval_interval

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.every_n_inner_iters(batch_idx, self.eval_interval):
            runner.logger.info(runner.log_processor.get_log_after_iter(runner, batch_idx, 'val')[1])

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.every_n_inner_iters(batch_idx, self.eval_interval):
            runner.logger.info(runner.log_processor.get_log_after_iter(runner, batch_idx, 'test')[1])
