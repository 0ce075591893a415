"""A signal may come during an evaluation."""
from typing import TYPE_CHECKING

from mmengine.hooks import Hook

if TYPE_CHECKING:
    from fedseg_mm.engine.stop_signals import StopSignals


class StopHook(Hook):
    """Ends an evaluation when a signal has asked the training to end.

    FederatedTrainLoop registers it.

    Args:
        stop (StopSignals): Knows whether one has.
    """

    def __init__(self, stop: 'StopSignals') -> None:
        self.stop = stop

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self.stop.check()
