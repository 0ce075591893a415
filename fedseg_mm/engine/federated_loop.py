"""A training loop whose epochs are federated rounds."""
import bisect
import signal
from collections.abc import Mapping

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, barrier, get_world_size, is_main_process
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
from fedseg_mm.engine.stop_signals import Stopped, StopSignals
from fedseg_mm.errors import FedSegError
from fedseg_mm.federation import Federation
from fedseg_mm.registry import check_arguments
from fedseg_mm.resume import (
    CheckpointFile,
    check_resumable,
    checkpoint_paths,
    differences,
    latest_checkpoint,
    named_checkpoint,
    settings_of,
)
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
    #: The checkpoint from which the run goes on.
    resumed: CheckpointFile | None = None

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
            kept = settings_of(runner.cfg, settings)
            self._find_checkpoint(runner, kept)
            self.federation = build_federation(settings)
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            self.federation.setup(runner, model, dataloader)
            self.stop = StopSignals(joint=get_world_size() > 1)  # the others would wait for one that has stopped
            runner._hooks = [WholeCheckpointHook.of(hook) if type(hook) is CheckpointHook else hook
                             for hook in runner.hooks]
            runner.register_hook(FederatedCheckpointHook(self.federation, kept))
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
            raise Stopped(stopped.exit_code - 128, self._what_is_saved()) from None
        except KeyboardInterrupt:  # the second, or of a run of several processes
            raise Stopped(signal.SIGINT, self._what_is_saved()) from None
        return self.runner.model

    def _run_rounds(self) -> None:
        runner, federation = self.runner, self.federation
        if self.resumed is None and (paths := checkpoint_paths(runner.cfg, runner.work_dir)):
            runner.logger.warning(
                f'{runner.work_dir} holds checkpoints of an earlier run, such as {paths[-1].name}: this run starts '
                'with round 1 and replaces those of the same name; --resume would go on from the earlier run, until '
                'this one has written a checkpoint.')
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
                self._save_finished_rounds()
                raise Stopped(number)
            self.run_epoch()
            self._decide_current_val_interval()
            if runner.val_loop is not None and self._epoch >= self.val_begin and (
                    self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs):
                self._evaluate()
        if self.stop_training:  # by a hook, after a round that no interval may name
            self._save_finished_rounds()
        federation.backend.close()
        runner.call_hook('after_train')

    def run_epoch(self) -> None:
        """One round: broadcast, train the cohort, aggregate."""
        runner, federation, round = self.runner, self.federation, self._epoch
        algorithm, backend = federation.algorithm, federation.backend
        runner.call_hook('before_train_epoch')
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=None)
        algorithm.follow(federation.model)
        cohort = federation.cohort(round)
        broadcast = algorithm.broadcast(round, hyperparameters(runner.optim_wrapper))
        self.round_log = RoundLog(round, cohort, broadcast, federation.client_name, not algorithm.pools_clients,
                                  len(federation.shards), federation.processors.privacy is not None)
        runner.call_hook('before_round', cohort=cohort, broadcast=broadcast)
        algorithm.begin_round(round)
        try:
            self._train_cohort(cohort, broadcast)
        except (Exception, Stopped) as error:
            self._save_finished_rounds(error)
            self.stop.check()  # a signal to the whole process group has ended the loader's workers too
            raise
        if self.stop.joint and (number := self._asked_to_stop()) is not None:
            self._save_finished_rounds(Stopped(number))
            raise Stopped(number)
        algorithm.all_reduce()
        self.round_log.note_processors(algorithm.processors.metrics())
        self.round_log.all_reduce()
        privacy = algorithm.processors.privacy
        if len(self.round_log.used) >= federation.min_clients or privacy is not None:
            algorithm.step(federation.model)
            self.round_log.processors.update(algorithm.processors.metrics())  # what the server has done
            if privacy is not None and self.round_log.clients and not self.round_log.used:
                runner.logger.warning(f'Round {round + 1}: no update of the cohort was finite, so the global '
                                      f'model has taken only noise; {algorithm.remedy}')
            federation.failed_rounds = 0
            self.round_log.privacy = None if privacy is None else privacy.spent
            if algorithm.batch_norm.recalibrates:
                backend.recalibrate(round, cohort)
                algorithm.adopt(federation.model)
        elif cohort:
            self._keep_model(cohort)
        runner.call_hook('after_round')
        runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=None, outputs=self.round_log.scalars())
        self._iter += 1
        runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _train_cohort(self, cohort: list[int], broadcast: Broadcast) -> None:
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
        if federation.failed_rounds >= federation.max_failed_rounds:
            self._save_finished_rounds(FedSegError())
            times = f', {federation.failed_rounds} rounds in a row' if federation.failed_rounds > 1 else ''
            raise FedSegError(f'round {round}: {sent}{times}; {federation.algorithm.remedy}; {self._what_is_saved()}')
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
            self._save_finished_rounds(error)
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

    # --- what is there to go on from ----------------------------------------
    def _find_checkpoint(self, runner, settings: dict) -> None:
        """Look at the checkpoint that is to be resumed, before anything is built or removed.

        Raises:
            FedSegError: The run cannot go on from it.
        """
        if not runner._resume:
            return
        if runner._load_from is None:
            self.resumed = latest_checkpoint(runner.cfg, runner.work_dir)
            runner._load_from = None if self.resumed is None else str(self.resumed.path)
            runner._resume = self.resumed is not None
        else:
            self.resumed = named_checkpoint(runner._load_from)
        if self.resumed is None:
            return
        runner.logger.info(f'The run goes on from {self.resumed.path} with round {self.resumed.rounds + 1}.')
        check_resumable(self.resumed, settings)
        for sentence in differences(self.resumed, settings):
            runner.logger.warning(f'--resume: {sentence}.')
        if self.resumed.seed is not None and self.resumed.seed != runner.seed:
            # MMEngine would take it too, but after cohorts and methods have had the other one
            runner._randomness_cfg.update(seed=self.resumed.seed)
            runner.set_randomness(**runner._randomness_cfg)

    @property
    def _checkpoint_hook(self) -> WholeCheckpointHook | None:
        return next((hook for hook in self.runner.hooks if isinstance(hook, WholeCheckpointHook)), None)

    def _save_finished_rounds(self, error: BaseException | None = None) -> None:
        """Write a checkpoint of the rounds that are finished, unless the last one on disk is.

        Args:
            error (BaseException, optional): What has ended the training, in a
                round or after it. Defaults to None: it ends as it should.
        """
        hook, runner, federation = self._checkpoint_hook, self.runner, self.federation
        if hook is None or self._epoch <= max(hook.saved, self.started_at):
            return
        try:
            if error is not None:
                if get_world_size() > 1 and not isinstance(error, Stopped):
                    return  # the other processes are in the middle of something else
                load_weights(federation.model, federation.algorithm.weights)
                barrier()  # no process is still writing what a client keeps
                if is_main_process():
                    federation.backend.abandon_round(self._epoch)
                barrier()
            runner.logger.info(f'Saving checkpoint at {self._epoch} epochs')
            try:
                hook.save(runner, self._epoch)
            finally:
                barrier()  # whoever says what is saved finds it
        except Exception as second:
            if error is None:
                raise
            runner.logger.warning(f'No checkpoint of the earlier rounds could be written: {second}')

    def _what_is_saved(self) -> str:
        """What --resume will do, for whoever has to start again."""
        hook = self._checkpoint_hook
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
