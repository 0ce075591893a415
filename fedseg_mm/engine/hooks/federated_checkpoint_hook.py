"""What a federated run adds to MMEngine's checkpoints, and takes from them."""
import time
from typing import TYPE_CHECKING

from mmengine.hooks import Hook

from fedseg_mm.checkpoints import restore_history, to_plain
from fedseg_mm.errors import FedSegError

if TYPE_CHECKING:
    from fedseg_mm.federation import Federation


class FederatedCheckpointHook(Hook):
    """Keeps the federation's state in checkpoints, which hold nothing that needs code to load.

    FederatedTrainLoop registers it.

    Args:
        federation (Federation): Whose state it is.
        settings (dict): The settings to compare with when it is resumed.
    """

    def __init__(self, federation: 'Federation', settings: dict) -> None:
        self.federation = federation
        self.settings = settings

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the federation's state, and leave nothing that needs code to load."""
        # the meta's own time is in seconds, in which a small run writes several
        checkpoint['federated'] = dict(self.federation.state_dict(), settings=self.settings, written=time.time_ns())
        # a few numbers, without which a schedule cannot go on: whatever save_optimizer and save_param_scheduler say
        checkpoint.setdefault('optimizer', runner.optim_wrapper.state_dict())
        if isinstance(runner.param_schedulers, list):
            checkpoint.setdefault('param_schedulers', [schedule.state_dict() for schedule in runner.param_schedulers])
        checkpoint['optimizer']['state'] = {}  # a client's, which the next one does not see
        to_plain(checkpoint)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take the federation's state up again, if the run is resumed."""
        restore_history(checkpoint)
        if runner._resume:
            self.federation.resume(checkpoint.get('federated'))
            return
        names = {name.removeprefix('module.') for name in checkpoint.get('state_dict', checkpoint)}
        if not names & runner.model.state_dict().keys():
            raise FedSegError('load_from names a checkpoint of another model: none of its weights has the name of '
                              "one of this model's")
