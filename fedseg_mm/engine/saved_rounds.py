"""The checkpoint that a run goes on from, and those that it leaves when it ends early."""
from collections.abc import Mapping

from mmengine.dist import barrier, get_world_size, is_main_process

from fedseg_mm.algorithms.fedavg import load_weights
from fedseg_mm.engine.hooks import WholeCheckpointHook
from fedseg_mm.engine.stop_signals import Stopped
from fedseg_mm.errors import FedSegError
from fedseg_mm.resume import CheckpointFile, checkpoint_paths, latest_checkpoint, named_checkpoint
from fedseg_mm.resumed_settings import check_resumable, differences, settings_of


class SavedRounds:
    """Finds the checkpoint to resume, before anything is built or removed, and saves finished rounds.

    Args:
        runner (Runner): MMEngine's runner.
        federated (Mapping): The config's ``federated``.

    Raises:
        FedSegError: The run cannot go on from the checkpoint.
    """

    def __init__(self, runner, federated: Mapping) -> None:
        self.runner = runner
        #: The run's settings, which its checkpoints keep.
        self.settings = settings_of(runner.cfg, federated)
        #: The checkpoint from which the run goes on.
        self.resumed = self._find()

    def _find(self) -> CheckpointFile | None:
        runner = self.runner
        if not runner._resume:
            return None
        if runner._load_from is None:
            resumed = latest_checkpoint(runner.cfg, runner.work_dir)
            runner._load_from = None if resumed is None else str(resumed.path)
            runner._resume = resumed is not None
        else:
            resumed = named_checkpoint(runner._load_from)
        if resumed is None:
            return None
        runner.logger.info(f'The run goes on from {resumed.path} with round {resumed.rounds + 1}.')
        check_resumable(resumed, self.settings)
        for sentence in differences(resumed, self.settings):
            runner.logger.warning(f'--resume: {sentence}.')
        if resumed.seed is not None and resumed.seed != runner.seed:
            # MMEngine would take it too, but after cohorts and methods have had the other one
            runner._randomness_cfg.update(seed=resumed.seed)
            runner.set_randomness(**runner._randomness_cfg)
        return resumed

    def warn_of_earlier_run(self) -> None:
        """Say that checkpoints of another run are in the way, if this one starts with round 1."""
        runner = self.runner
        if self.resumed is None and (paths := checkpoint_paths(runner.cfg, runner.work_dir)):
            runner.logger.warning(
                f'{runner.work_dir} holds checkpoints of an earlier run, such as {paths[-1].name}: this run starts '
                'with round 1 and replaces those of the same name; --resume would go on from the earlier run, until '
                'this one has written a checkpoint.')

    @property
    def _hook(self) -> WholeCheckpointHook | None:
        return next((hook for hook in self.runner.hooks if isinstance(hook, WholeCheckpointHook)), None)

    def save(self, error: BaseException | None = None) -> None:
        """Write a checkpoint of the rounds that are finished, unless the last one on disk is.

        Args:
            error (BaseException, optional): What has ended the training, in a
                round or after it. Defaults to None: it ends as it should.
        """
        hook, runner, loop = self._hook, self.runner, self.runner.train_loop
        federation, rounds = loop.federation, runner.epoch
        if hook is None or rounds <= max(hook.saved, loop.started_at):
            return
        try:
            if error is not None:
                if get_world_size() > 1 and not isinstance(error, Stopped):
                    return  # the other processes are in the middle of something else
                load_weights(federation.model, federation.algorithm.weights)
                barrier()  # no process is still writing what a client keeps
                if is_main_process():
                    federation.backend.abandon_round(rounds)
                barrier()
            runner.logger.info(f'Saving checkpoint at {rounds} epochs')
            try:
                hook.save(runner, rounds)
            finally:
                barrier()  # whoever says what is saved finds it
        except Exception as second:
            if error is None:
                raise
            runner.logger.warning(f'No checkpoint of the earlier rounds could be written: {second}')

    def sentence(self) -> str:
        """What --resume will do, for whoever has to start again."""
        hook = self._hook
        try:
            latest = latest_checkpoint(self.runner.cfg, self.runner.work_dir, quiet=True)
        except FedSegError:
            latest = None
        if latest is not None and (hook is None or hook.saved):
            return f'--resume goes on from {latest.path.name} with round {latest.rounds + 1}'
        if self.resumed is not None:
            given = '' if latest is not None and latest.path == self.resumed.path else f' {self.resumed.path}'
            return (f'no checkpoint was written since --resume, and --resume{given} goes on from '
                    f'{self.resumed.path.name} again')
        if latest is not None:
            return (f'no checkpoint of this run was written: start it again without --resume, which would go on from '
                    f'{latest.path.name} of an earlier run')
        return 'no checkpoint was written: start again without --resume'
