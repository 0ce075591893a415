"""A training loop whose epochs are federated rounds."""
import bisect
from collections.abc import Iterator

from mmengine.dist import get_rank, get_world_size
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from fedseg_mm.datasets import Pass
from fedseg_mm.engine.federated_hook import FederatedHook
from fedseg_mm.engine.resumed_evaluation_hook import ResumedEvaluationHook
from fedseg_mm.engine.share_clients import share_clients
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import check_positive


@LOOPS.register_module()
class FederatedTrainLoop(EpochBasedTrainLoop):
    """Trains in federated rounds: ``train_cfg=dict(type='FederatedTrainLoop', …)``.

    To MMEngine a round is one epoch of one iteration, on the global model.
    Its own hooks thus work as they are: checkpoints, ``save_best``, schedules
    by epoch or iteration, EMA, validation and resume all count rounds. Hooks
    may further implement ``before_round``, ``before_client``,
    ``after_client`` and ``after_round``.

    Args:
        runner (Runner): With a :class:`FederatedHook` among its hooks.
        dataloader (dict): The config's ``train_dataloader``; its ``sampler``
            gives way to the clients'.
        max_rounds (int): Rounds to train.
        val_begin (int): First round to evaluate after. Defaults to 1.
        val_interval (int): Rounds between evaluations. Defaults to 1.
        dynamic_intervals (list[tuple[int, int]], optional): As in MMEngine.

    Raises:
        FedSegError: There is no round to train, or the federation cannot be
            made.
    """

    def __init__(self, runner, dataloader: dict, max_rounds: int, val_begin: int = 1, val_interval: int = 1,
                 dynamic_intervals: list[tuple[int, int]] | None = None) -> None:
        check_positive('train_cfg.max_rounds', max_rounds)
        check_positive('train_cfg.val_interval', val_interval)
        hooks = [hook for hook in runner.hooks if isinstance(hook, FederatedHook)]
        if len(hooks) > 1:
            raise FedSegError(f'there are {len(hooks)} FederatedHooks in the config: keep one')
        self.federation = hooks[0] if hooks else None
        if self.federation is not None:
            self.federation.setup(runner, dataloader)
            loader: DataLoader | dict = self.federation.stream.loader
        else:  # evaluation: SegVisualizationHook has MMEngine build the loop to ask for the iteration
            loader = dict(sampler=dict(type='DefaultSampler', shuffle=False), **dataloader)
        super().__init__(runner, loader, max_rounds, val_begin, val_interval, dynamic_intervals)

    def run(self):
        """Launch training.

        Raises:
            FedSegError: There is no FederatedHook.
        """
        if self.federation is None:
            raise FedSegError('FederatedTrainLoop needs a FederatedHook: train with tools/fed_train.py, which makes it '
                              'of `federated = dict(...)`, or list it in `custom_hooks`')
        self.started_at = self._epoch
        self.runner.register_hook(ResumedEvaluationHook())
        return super().run()

    def evaluates(self, rounds: int) -> bool:
        """Whether there is an evaluation after so many rounds, as MMEngine decides it."""
        if self.runner.val_loop is None or rounds < self.val_begin:
            return False
        interval = self.val_interval
        if self.dynamic_milestones is not None:
            interval = self.dynamic_intervals[bisect.bisect(self.dynamic_milestones, rounds + 1) - 1]
        return rounds % interval == 0 or rounds == self._max_epochs

    def _cohort(self, round: int) -> tuple[list[int], list[int]]:
        """The clients of a round, and those of them that this process trains."""
        cohort = self.federation.sampler.cohort(self.runner.seed, round)
        costs = [self.federation.stream.batch_sampler.num_batches(client) for client in cohort]
        return cohort, share_clients(cohort, costs, get_world_size())[get_rank()]

    def _passes(self) -> Iterator[Pass]:
        """The ways through the clients' images from here to the last round: workers load across rounds."""
        for round in range(self._epoch, self._max_epochs):
            yield from self.federation.trainer.passes(round, *self._cohort(round))

    def run_epoch(self) -> None:
        """One round: broadcast, train the cohort, average."""
        runner, federation = self.runner, self.federation
        algorithm, trainer = federation.algorithm, federation.trainer
        runner.call_hook('before_train_epoch')
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=None)
        cohort, share = self._cohort(self._epoch)
        broadcast = algorithm.broadcast(self._epoch)
        algorithm.begin_round()
        if not federation.stream.is_planned:
            federation.stream.plan(self._passes())
        federation.stream.waited = 0.0
        runner.call_hook('before_round', cohort=cohort, broadcast=broadcast)
        for client in share:
            runner.call_hook('before_client', client=client)
            update = trainer.fit(client, broadcast)
            if update.is_finite:
                algorithm.receive(update)
            runner.call_hook('after_client', update=update)
            del update  # its tensors are the model's, which the next client overwrites
        algorithm.all_reduce()
        federation.log.join(cohort)
        if not federation.log.used:
            raise FedSegError(f'round {self._epoch + 1}: no client of the cohort {cohort} sent a finite update; lower '
                              'the learning rate or clip gradients (optim_wrapper.clip_grad), and go on from the last '
                              'checkpoint with --resume')
        algorithm.step(trainer.model)
        if algorithm.batch_norm == 'recalibrate':
            trainer.recalibrate(self._epoch, cohort)  # of several processes, each does all of it
            algorithm.adopt(trainer.model)
        runner.call_hook('after_round')
        runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=None, outputs=federation.log.scalars())
        self._iter += 1
        runner.call_hook('after_train_epoch')
        self._epoch += 1
