"""A training loop whose epochs are federated rounds."""
import bisect
import signal

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from fedseg_mm.algorithms.fedavg import load_weights
from fedseg_mm.engine.hooks import (
    FederatedCheckpointHook,
    FederatedHook,
    RoundLogHook,
    RunSummaryHook,
    StopHook,
    WholeCheckpointHook,
)
from fedseg_mm.engine.round_log import RoundLog
from fedseg_mm.engine.saved_rounds import SavedRounds
from fedseg_mm.engine.stop_signals import Stopped, StopSignals
from fedseg_mm.errors import FedSegError
from fedseg_mm.federation import Federation, build_federation
from fedseg_mm.structures import Broadcast, ClientFailure
from fedseg_mm.validation import check_integer, check_positive


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
    #: What the run goes on from, and what can go on from it.
    saved: SavedRounds

    def __init__(self, runner, dataloader: dict, max_rounds: int, val_begin: int = 1, val_interval: int = 1,
                 dynamic_intervals: list[tuple[int, int]] | None = None, federated: dict | None = None) -> None:
        check_positive('train_cfg.max_rounds', max_rounds)
        check_positive('train_cfg.val_interval', val_interval)
        check_integer('train_cfg.val_begin', val_begin, 0)
        listed = [hook.federated for hook in runner.hooks if isinstance(hook, FederatedHook)]
        if len(listed) > 1:
            raise FedSegError(f'there are {len(listed)} FederatedHooks in the config: keep one')
        settings = federated or next(iter(listed), None)
        if settings is not None:
            self.saved = SavedRounds(runner, settings)
            self.federation = build_federation(settings)
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            self.federation.setup(runner, model, dataloader)
            self.stop = StopSignals(joint=get_world_size() > 1)  # the others would wait for one that has stopped
            runner._hooks = [WholeCheckpointHook.of(hook) if type(hook) is CheckpointHook else hook
                             for hook in runner.hooks]
            runner.register_hook(FederatedCheckpointHook(self.federation, self.saved.settings))
            runner.register_hook(RoundLogHook())
            runner.register_hook(RunSummaryHook())
            runner.register_hook(StopHook(self.stop))
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
        self.started_at = self._epoch
        try:
            with self.stop:
                self._run_rounds()
        except Stopped as stopped:
            raise Stopped(stopped.exit_code - 128, self.saved.sentence()) from None
        except KeyboardInterrupt:  # the second, or of a run of several processes
            raise Stopped(signal.SIGINT, self.saved.sentence()) from None
        return self.runner.model

    def _run_rounds(self) -> None:
        runner, federation = self.runner, self.federation
        self.saved.warn_of_earlier_run()
        runner.call_hook('before_train')
        federation.start(runner, self._max_epochs)
        if self.started_at > 0 and self.evaluates(self.started_at):
            # MMEngine writes a checkpoint before it evaluates the same round, so that whoever resumes has lost the
            # figure; best scores and means over evaluations are then those of the uninterrupted run
            runner.logger.info(f'Round {self.started_at} is evaluated, as it was before the interruption.')
            self._evaluate()
        while self._epoch < self._max_epochs and not self.stop_training:
            if (privacy := federation.processors.privacy) is not None and (reason := privacy.stops()):
                runner.logger.info(f'Training ends after round {self._epoch}: {reason}.')
                runner.train_loop.stop_training = True
                if self._epoch > self.started_at and runner.val_loop is not None and not self.evaluates(self._epoch):
                    self._evaluate()
                break
            if (number := self._asked_to_stop()) is not None:  # since the last client or evaluated image
                self.saved.save()
                raise Stopped(number)
            self.run_epoch()
            self._decide_current_val_interval()
            if runner.val_loop is not None and self._epoch >= self.val_begin and (
                    self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs):
                self._evaluate()
        if self.stop_training:  # by a hook, after a round that no interval may name
            self.saved.save()
        federation.backend.close()
        runner.call_hook('after_train')

    def run_epoch(self) -> None:
        """One round: broadcast, train the cohort, aggregate."""
        runner, federation, round = self.runner, self.federation, self._epoch
        algorithm, privacy = federation.algorithm, federation.processors.privacy
        runner.call_hook('before_train_epoch')
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=None)
        algorithm.follow(federation.model)
        cohort = federation.cohort(round)
        broadcast = algorithm.broadcast(round, hyperparameters(runner.optim_wrapper))
        self.round_log = RoundLog(round, cohort, broadcast, federation.client_name, not algorithm.pools_clients,
                                  len(federation.shards), privacy is not None)
        runner.call_hook('before_round', cohort=cohort, broadcast=broadcast)
        algorithm.begin_round(round)
        self._train_cohort(cohort, broadcast)
        algorithm.all_reduce()
        self.round_log.note_processors(algorithm.processors.metrics())
        self.round_log.all_reduce()
        if len(self.round_log.used) >= federation.min_updates or privacy is not None:
            self._step(cohort)
        elif cohort:
            self._keep_model(cohort)
        runner.call_hook('after_round')
        runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=None, outputs=self.round_log.scalars())
        self._iter += 1
        runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _train_cohort(self, cohort: list[int], broadcast: Broadcast) -> None:
        """Take in the cohort's updates; what ends the training here leaves the finished rounds saved."""
        try:
            self._receive_updates(cohort, broadcast)
        except (Exception, Stopped) as error:
            self.saved.save(error)
            self.stop.check()  # a signal to the whole process group has ended the loader's workers too
            raise
        if self.stop.joint and (number := self._asked_to_stop()) is not None:
            self.saved.save(Stopped(number))
            raise Stopped(number)

    def _receive_updates(self, cohort: list[int], broadcast: Broadcast) -> None:
        federation = self.federation
        for update in federation.hostile.join(federation.backend.train(cohort, broadcast), cohort, broadcast,
                                              federation.algorithm):
            self.round_log.add(update)
            if not isinstance(update, ClientFailure) and update.is_finite:
                federation.algorithm.receive(update)
            self.runner.call_hook('after_client', update=update)
            del update  # its tensors are the model's, which the next client overwrites
            if len(self.round_log.clients) < len(cohort):  # after the last one, the round is as good as finished
                self.stop.check()
                if self.stop.joint and self.stop.received is not None and not federation.hostile.collude:
                    break  # the others learn of it after their clients

    def _step(self, cohort: list[int]) -> None:
        """Make the new global model of the updates."""
        federation, algorithm, log = self.federation, self.federation.algorithm, self.round_log
        algorithm.step(federation.model)
        log.processors.update(algorithm.processors.metrics())  # what the server has done
        federation.failed_rounds = 0
        if (privacy := algorithm.processors.privacy) is not None:
            if log.clients and not log.used:
                self.runner.logger.warning(f'Round {self._epoch + 1}: no update of the cohort was finite, so the '
                                           f'global model has taken only noise; {algorithm.remedy}')
            log.privacy = privacy.spent
        if algorithm.batch_norm.recalibrates:
            federation.backend.recalibrate(self._epoch, cohort)
            algorithm.adopt(federation.model)

    def _asked_to_stop(self) -> int | None:
        """The signal that has asked this process, or any of a run of several, to stop."""
        if not self.stop.joint:
            return self.stop.received
        number = torch.tensor(self.stop.received or 0, device=get_device())
        all_reduce(number, 'max')
        return int(number) or None

    def _keep_model(self, cohort: list[int]) -> None:
        """The global model stays as it was before a round in which too few clients have sent an update.

        Raises:
            FedSegError: There were too many such rounds in a row.
        """
        federation, round, good = self.federation, self._epoch + 1, len(self.round_log.used)
        federation.failed_rounds += 1
        names = ', '.join(map(federation.client_name, cohort))
        sent = f'{good or "no"} client{"" if good < 2 else "s"} of the cohort {names} sent a finite update'
        if federation.min_clients > 1:
            sent += f', and federated.min_clients is {federation.min_clients}'
        if (aggregator := federation.algorithm.aggregator).min_updates > federation.min_clients:
            sent += f', and {type(aggregator).__name__} needs {aggregator.min_updates}'
        if federation.failed_rounds >= federation.max_failed_rounds:
            self.saved.save(FedSegError())
            times = f', {federation.failed_rounds} rounds in a row' if federation.failed_rounds > 1 else ''
            remedy = federation.algorithm.remedy if good < len(cohort) else (
                'raise federated.clients_per_round, or federated.max_failed_rounds')
            raise FedSegError(f'round {round}: {sent}{times}; {remedy}; {self.saved.sentence()}')
        self.runner.logger.warning(f'Round {round}: {sent}: the global model stays as it was.')
        federation.algorithm.discard_round()
        load_weights(federation.model, federation.algorithm.weights)

    def _evaluate(self) -> None:
        # cuDNN would try all of its algorithms anew for every size of image
        benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
        try:
            self.runner.val_loop.run()
        except (Exception, Stopped) as error:
            weights, model = self.federation.algorithm.weights, self.federation.model.state_dict()
            if not all(torch.equal(model[name], weight) for name, weight in weights.items()):
                for hook in self.runner.hooks:
                    if isinstance(hook, EMAHook):  # gives the model its own weights back
                        hook.after_val_epoch(self.runner)
            self.saved.save(error)
            raise
        finally:
            torch.backends.cudnn.benchmark = benchmark

    def evaluates(self, rounds: int) -> bool:
        """Whether there is an evaluation after so many rounds, as MMEngine decides it."""
        if self.runner.val_loop is None or rounds < self.val_begin:
            return False
        interval = self.val_interval
        if self.dynamic_milestones is not None:
            interval = self.dynamic_intervals[bisect.bisect(self.dynamic_milestones, rounds + 1) - 1]
        return rounds % interval == 0 or rounds == self._max_epochs


def hyperparameters(optim_wrapper) -> list[dict[str, float]]:
    """What schedules may have moved in each parameter group of the optimizer: rates, momenta, weight decay."""
    return [{name: value for name, value in group.items() if isinstance(value, (int, float))}
            for group in optim_wrapper.optimizer.param_groups]
