"""A training loop whose epochs are federated rounds."""
import bisect
from collections.abc import Mapping

from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from fedseg_mm.engine.hooks import FederatedCheckpointHook, FederatedHook, RoundLogHook
from fedseg_mm.engine.round_log import RoundLog
from fedseg_mm.errors import FedSegError
from fedseg_mm.federation import Federation
from fedseg_mm.registry import check_arguments
from fedseg_mm.structures import ClientFailure
from fedseg_mm.validation import check_positive


@LOOPS.register_module()
class FederatedTrainLoop(EpochBasedTrainLoop):
    """Trains in federated rounds: ``train_cfg=dict(type='FederatedTrainLoop', …)``.

    To MMEngine a round is one epoch of one iteration, on the global model.
    Its own hooks thus work as they are: checkpoints, ``save_best``, schedules
    by epoch or iteration, EMA, validation and resume all count rounds. Hooks
    may further implement ``before_round``, ``before_client``,
    ``after_client`` and ``after_round``.

    Args:
        runner (Runner): MMEngine's runner.
        dataloader (dict): The config's ``train_dataloader``; per-client
            samplers replace its ``sampler``.
        max_rounds (int): Rounds to train.
        val_begin (int): First round to evaluate after. Defaults to 1.
        val_interval (int): Rounds between evaluations. Defaults to 1.
        dynamic_intervals (list[tuple[int, int]], optional): As in MMEngine.
        federated (dict, optional): The arguments of a :class:`Federation`.
            tools/fed_train.py puts the config's ``federated`` here. Defaults
            to None: those of a :class:`FederatedHook`, if one is listed in
            ``custom_hooks``.

    Raises:
        FedSegError: There is no round to train, or the federation cannot be
            made.
    """

    #: Made of ``federated``; not there in an evaluation.
    federation: Federation = None  # type: ignore[assignment]
    #: The round that is being trained, or was trained last.
    round_log: RoundLog

    def __init__(self, runner, dataloader: dict, max_rounds: int, val_begin: int = 1, val_interval: int = 1,
                 dynamic_intervals: list[tuple[int, int]] | None = None, federated: dict | None = None) -> None:
        check_positive('train_cfg.max_rounds', max_rounds)
        check_positive('train_cfg.val_interval', val_interval)
        listed = [hook.federated for hook in runner.hooks if isinstance(hook, FederatedHook)]
        if len(listed) > 1:
            raise FedSegError(f'there are {len(listed)} FederatedHooks in the config: keep one')
        settings = federated or next(iter(listed), None)
        if settings is not None:
            self.federation = build_federation(settings)
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            self.federation.setup(runner, model, dataloader)
            runner.register_hook(FederatedCheckpointHook(self.federation))
            runner.register_hook(RoundLogHook())
            loader: DataLoader | dict = self.federation.backend.loader
        else:  # evaluation: SegVisualizationHook has MMEngine build the loop to ask for the iteration
            loader = dict(sampler=dict(type='DefaultSampler', shuffle=False), **dataloader)
        super().__init__(runner, loader, max_rounds, val_begin, val_interval, dynamic_intervals)

    def run(self):
        """Launch training.

        Raises:
            FedSegError: There is no federation.
        """
        if self.federation is None:
            raise FedSegError('FederatedTrainLoop needs a federation: train with tools/fed_train.py, which makes it of '
                              '`federated = dict(...)`, or list a FederatedHook in `custom_hooks`')
        runner, federation = self.runner, self.federation
        self.started_at = self._epoch
        runner.call_hook('before_train')
        federation.start(runner, self._max_epochs)
        self._evaluate_resumed_round()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            if runner.val_loop is not None and self._epoch >= self.val_begin and (
                    self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs):
                runner.val_loop.run()
        federation.backend.close()
        runner.call_hook('after_train')
        return runner.model

    def run_epoch(self) -> None:
        """One round: broadcast, train the cohort, aggregate."""
        runner, federation, round = self.runner, self.federation, self._epoch
        algorithm, backend = federation.algorithm, federation.backend
        runner.call_hook('before_train_epoch')
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=None)
        algorithm.follow(federation.model)
        cohort = federation.cohort(round)
        broadcast = algorithm.broadcast(round, hyperparameters(runner.optim_wrapper))
        self.round_log = RoundLog(round, cohort, broadcast, counts_bytes=not algorithm.pools_clients)
        runner.call_hook('before_round', cohort=cohort, broadcast=broadcast)
        algorithm.begin_round(round)
        for update in backend.train(cohort, broadcast):
            self.round_log.add(update)
            if not isinstance(update, ClientFailure) and update.is_finite:
                algorithm.receive(update)
            runner.call_hook('after_client', update=update)
            del update  # its tensors are the model's, which the next client overwrites
        algorithm.all_reduce()
        self.round_log.note_processors(algorithm.processors.metrics())
        self.round_log.all_reduce()
        if self.round_log.used:
            algorithm.step(federation.model)
            if algorithm.batch_norm.recalibrates:
                backend.recalibrate(round, cohort)
                algorithm.adopt(federation.model)
        elif cohort:
            raise FedSegError(f'round {round + 1}: no client of the cohort {cohort} sent a finite update; '
                              f'{algorithm.remedy}, and go on from the last checkpoint with --resume')
        runner.call_hook('after_round')
        runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=None, outputs=self.round_log.scalars())
        self._iter += 1
        runner.call_hook('after_train_epoch')
        self._epoch += 1

    def evaluates(self, rounds: int) -> bool:
        """Whether there is an evaluation after so many rounds, as MMEngine decides it."""
        if self.runner.val_loop is None or rounds < self.val_begin:
            return False
        interval = self.val_interval
        if self.dynamic_milestones is not None:
            interval = self.dynamic_intervals[bisect.bisect(self.dynamic_milestones, rounds + 1) - 1]
        return rounds % interval == 0 or rounds == self._max_epochs

    def _evaluate_resumed_round(self) -> None:
        """Evaluate the round that is resumed, if the uninterrupted run evaluated it.

        MMEngine writes a checkpoint before it evaluates the same round, so
        that whoever resumes has lost the figure. Best scores and means over
        evaluations are then those of the uninterrupted run.
        """
        if self.started_at > 0 and self.evaluates(self.started_at):
            self.runner.logger.info(f'Round {self.started_at} is evaluated, as it was before the interruption.')
            self.runner.val_loop.run()


def build_federation(settings: Mapping) -> Federation:
    """The federation of a config's ``federated``.

    Raises:
        FedSegError: A key or value cannot be used; names it.
    """
    check_arguments(Federation, dict(settings), 'federated')
    return Federation(**settings)


def hyperparameters(optim_wrapper) -> list[dict[str, float]]:
    """What schedules may have moved in each parameter group of the optimizer: rates, momenta, weight decay."""
    return [{name: value for name, value in group.items() if isinstance(value, (int, float))}
            for group in optim_wrapper.optimizer.param_groups]
