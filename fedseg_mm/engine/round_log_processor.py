"""MMEngine's log lines, with the word round."""
from mmengine.registry import LOG_PROCESSORS
from mmengine.runner import LogProcessor


@LOG_PROCESSORS.register_module()
class RoundLogProcessor(LogProcessor):
    """Says ``Round(train) [12/800]`` where MMEngine says ``Iter(train) [12/800]``.

    Figures are those of the round itself, not means over the last ten.
    """

    def __init__(self, window_size: int = 1, by_epoch: bool = False, **kwargs) -> None:
        super().__init__(window_size=window_size, by_epoch=by_epoch, **kwargs)

    def get_log_after_iter(self, runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        return tag, line.replace('Iter(train)', 'Round(train)', 1)
