"""The user's switch: makes a federation of an MMSegmentation data set."""
import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from mmengine.dataset import BaseDataset, ConcatDataset, pseudo_collate
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import FUNCTIONS, HOOKS
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.decode_heads import PointHead, STDCHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import DATASETS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from fedseg_mm.algorithms import FedAvg
from fedseg_mm.algorithms.fedavg import BATCH_NORM
from fedseg_mm.compat import restore_history, to_plain
from fedseg_mm.datasets import (
    UNANNOTATED,
    ClientBatchSampler,
    ClientDataset,
    ClientStream,
    Partition,
    Partitioner,
    PartitionSummary,
    scan_labels,
)
from fedseg_mm.engine.client_sampler import ClientSampler
from fedseg_mm.engine.client_state_store import ClientStateStore
from fedseg_mm.engine.local_trainer import LocalTrainer
from fedseg_mm.engine.round_log import RoundLog
from fedseg_mm.errors import FedSegError
from fedseg_mm.models import BackCELoss
from fedseg_mm.registry import AGGREGATORS, ALGORITHMS, PARTITIONERS, build, check_keys, check_positive
from fedseg_mm.structures import Broadcast, ClientUpdate, FederationInfo

#: Keys of ``train_dataloader`` that a federation takes over as they are.
LOADER_KEYS = ('pin_memory', 'prefetch_factor', 'timeout', 'multiprocessing_context')
#: Keys of ``train_dataloader`` that the clients' own sampling replaces.
REPLACED_KEYS = ('sampler', 'batch_sampler', 'persistent_workers')


def build_partitioner(partitioner: dict | str) -> Partitioner:
    """Build the config's ``federated.partitioner``; a path is that of a manifest.

    Raises:
        FedSegError: A type, key or value cannot be used; names it.
    """
    if isinstance(partitioner, str):
        partitioner = dict(type='ManifestPartitioner', manifest=partitioner)
    return build(PARTITIONERS, partitioner, 'federated.partitioner')


def check_evaluation(dataloader: DataLoader) -> None:
    """Look at every image and label of an evaluation before it starts.

    Raises:
        FedSegError: A file cannot be evaluated on; names it.
    """
    dataset = dataloader.dataset
    if isinstance(dataset, (BaseDataset, ConcatDataset)):  # other wrappers are no matter here
        scan_labels(dataset, dataloader.num_workers, 'evaluation')


@contextmanager
def first_process_first() -> Iterator[None]:
    """Have the other processes wait until the first one is through."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


@HOOKS.register_module()
class FederatedHook(Hook):
    """Partitions the training data by client and coordinates the rounds.

    A config states it as ``federated = dict(...)``, which tools/fed_train.py
    puts among the hooks; it may as well be listed in ``custom_hooks``.

    Args:
        partitioner (dict or str): Who holds what, e.g.
            ``dict(type='ClassPartitioner', num_clients=22,
            classes_per_client=1)``, or the path of a manifest.
        clients_per_round (int): Size of a round's cohort.
        local_epochs (int): Passes of a client over its images per round.
            Defaults to 1.
        algorithm (dict): The federated method. Defaults to FedAvg.
        aggregator (dict): How the updates of a cohort become one. Defaults to
            the weighted mean.

    Raises:
        FedSegError: A type, key or value cannot be used; names it.
    """

    def __init__(self, partitioner: dict | str, clients_per_round: int, local_epochs: int = 1,
                 algorithm: dict | None = None, aggregator: dict | None = None) -> None:
        check_positive('federated.clients_per_round', clients_per_round)
        check_positive('federated.local_epochs', local_epochs)
        self.clients_per_round = clients_per_round
        self.local_epochs = local_epochs
        self.partitioner = build_partitioner(partitioner)
        self.algorithm: FedAvg = build(ALGORITHMS, algorithm or dict(type='FedAvg'), 'federated.algorithm')
        self.make_aggregator = partial(
            build, AGGREGATORS, aggregator or dict(type='WeightedMean'), 'federated.aggregator')
        self.make_aggregator()  # so that what is wrong is told now
        self._algorithm_state: dict | None = None
        self._client_states: dict[int, int] | None = None
        self.summary: PartitionSummary | None = None
        self.stream: ClientStream | None = None

    # --- before training ----------------------------------------------------
    def setup(self, runner, dataloader: dict) -> None:
        """Make the federation; called by FederatedTrainLoop, before the optimizer is built.

        Args:
            runner (Runner): MMEngine's runner.
            dataloader (dict): The config's ``train_dataloader``.

        Raises:
            FedSegError: The data set, loader or model cannot be federated.
        """
        loader = copy.deepcopy(dict(dataloader))
        check_keys(loader, {'dataset', 'batch_size', 'num_workers', 'collate_fn', 'drop_last', *LOADER_KEYS,
                            *REPLACED_KEYS}, 'train_dataloader')
        if 'dataset' not in loader:
            raise FedSegError('train_dataloader needs `dataset`, which is not given')
        check_positive('train_dataloader.batch_size', loader.get('batch_size'))
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        num_workers = loader.get('num_workers', 0)
        dataset = DATASETS.build(loader['dataset'])
        clients_view = ClientDataset(dataset)
        self._check_model(model, dataset, loader['batch_size'])
        # the first process scans the labels, the others find what it cached
        with first_process_first():
            self.summary = PartitionSummary.of_dataset(dataset, self.partitioner, num_workers)
        shards = self.algorithm.shards(self.partition)
        pooled = len(shards) < len(self.partition)
        self.sampler = ClientSampler(len(shards), min(self.clients_per_round, len(shards)) if pooled else
                                     self.clients_per_round)
        self._report(runner, loader['batch_size'])

        batch_sampler = ClientBatchSampler(shards, loader['batch_size'], self.local_epochs,
                                           loader.get('drop_last', True))
        collate_fn = loader.get('collate_fn', pseudo_collate)
        if isinstance(collate_fn, dict):
            collate_type = collate_fn.pop('type')
            function = FUNCTIONS.get(collate_type) if isinstance(collate_type, str) else collate_type
            collate_fn = partial(function, **collate_fn)
        self.stream = ClientStream(clients_view, batch_sampler, num_workers, collate_fn,
                                   **{key: loader[key] for key in LOADER_KEYS if key in loader})
        self.algorithm.setup(model, FederationInfo(len(shards), len(self.summary.class_names), runner.seed,
                                                   self.make_aggregator))

    @staticmethod
    def _check_model(model: nn.Module, dataset, batch_size: int) -> None:
        classes = len(dataset.metainfo['classes'])
        if classes > UNANNOTATED:
            raise FedSegError(f'the data set has {classes} classes, but at most {UNANNOTATED} fit beside the labels '
                              'for unannotated and void pixels')
        for name, module in model.named_modules():
            if isinstance(module, PointHead) and any(isinstance(loss, BackCELoss) for loss in module.modules()):
                raise FedSegError(f'model.{name} is a PointHead, whose labels are points and not maps: give it another '
                                  'loss than BackCELoss')
            if isinstance(module, BaseDecodeHead) and not isinstance(module, STDCHead) and (
                    module.num_classes != classes):
                raise FedSegError(f'model.{name} has num_classes={module.num_classes}, but the data set has {classes} '
                                  f'classes: set model.{name}.num_classes={classes}')
        preprocessor = model.data_preprocessor
        if isinstance(preprocessor, SegDataPreProcessor) and preprocessor.size is None and (
                preprocessor.size_divisor is None):
            raise FedSegError('model.data_preprocessor has no `size`, to which images of a batch are padded: set '
                              "model.data_preprocessor.size to the train pipeline's crop size")
        if batch_size < 2 and any(isinstance(module, _BatchNorm) for module in model.modules()):
            raise FedSegError('batch normalisation cannot train on batches of one image: set '
                              'train_dataloader.batch_size to at least 2, or use another norm_cfg, such as GN')

    @property
    def partition(self) -> Partition:
        """Who holds and annotates what."""
        return self.summary.partition

    def _report(self, runner, batch_size: int) -> None:
        sizes = self.summary.num_images
        runner.logger.info(
            f'Partition {self.partition.hash[:12]}: {len(sizes)} clients with {min(sizes)} to {max(sizes)} images, '
            f'{sum(sizes)} in all; manifest in {Path(runner.work_dir) / "partition.json"}')
        for sentence in self.summary.warnings(batch_size):
            runner.logger.warning(sentence)

    def before_run(self, runner) -> None:
        """Check the evaluation's files too, before hours of training."""
        if self.stream is not None and runner.val_loop is not None:
            with first_process_first():
                check_evaluation(runner.val_dataloader)

    def before_train(self, runner) -> None:
        """Start from the weights that were initialised, loaded or resumed."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.algorithm.start(model)
        if self._algorithm_state is not None:
            self.algorithm.load_state_dict(self._algorithm_state)
        self.store = ClientStateStore(Path(runner.work_dir) / 'clients')
        if is_main_process():
            self.partition.save(Path(runner.work_dir) / 'partition.json', self.summary.image_names,
                                self.summary.class_names)
            self.store.rewind(runner.epoch)
            self._check_client_states()
        else:
            self.store.checkpointed = runner.epoch
        barrier()
        self._last_checkpoint = self._named_checkpoint(runner)
        self.trainer = LocalTrainer(model, runner.optim_wrapper, self.stream, self.algorithm, self.store, runner.seed)
        if self.trainer.has_batch_norm:
            runner.logger.info(f'Batch normalisation: {BATCH_NORM[self.algorithm.batch_norm]}.')

    def _check_client_states(self) -> None:
        """Refuse to go on without what the clients had kept."""
        if self._client_states is not None and self._client_states != (found := self.store.latest()):
            lost = [client for client, rounds in self._client_states.items() if found.get(client) != rounds]
            raise FedSegError(f'the state of client {lost[0] if lost else min(found)} in {self.store.folder} is not '
                              'that of the checkpoint: bring back the folder of the first run, or start anew from the '
                              'weights with `load_from=CHECKPOINT` instead of --resume')

    @staticmethod
    def _named_checkpoint(runner) -> str | None:
        """What --resume would resume from."""
        file = Path(runner.work_dir) / 'last_checkpoint'
        return file.read_text() if file.is_file() else None

    # --- rounds -------------------------------------------------------------
    def before_round(self, runner, cohort: Sequence[int], broadcast: Broadcast) -> None:
        self.log = RoundLog(runner.epoch, list(cohort), broadcast)
        # the first process has written it after the round before; the others may be ahead of it
        named = [self._named_checkpoint(runner)]
        broadcast_object_list(named)
        if named[0] != self._last_checkpoint:
            self._last_checkpoint, self.store.checkpointed = named[0], runner.epoch

    def before_client(self, runner, client: int) -> None:
        self.log.start_client()

    def after_client(self, runner, update: ClientUpdate) -> None:
        self.log.add(update)
        if not update.is_finite:
            runner.logger.warning(f'Round {runner.epoch + 1}: the update of client {update.client} holds NaN or '
                                  'infinite values and is left out.')

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        # MMEngine's timer measured the wait before the round, which is none
        runner.message_hub.update_scalar('train/data_time', self.stream.waited)
        runner.logger.info(self.log.sentence())
        if is_main_process():
            self.log.write(Path(runner.log_dir) / 'vis_data' / 'rounds.json', runner.message_hub.get_info('eta', None))
        runner.visualizer.add_scalars(self.log.flat(), step=runner.epoch + 1)

    def after_train(self, runner) -> None:
        self.stream.close()

    # --- checkpoints --------------------------------------------------------
    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the federation's state, and leave nothing that needs code to load."""
        checkpoint['federated'] = dict(
            partition=self.partition.hash, algorithm=self.algorithm.state_dict(),
            type=type(self.algorithm).__name__, batch_norm=BATCH_NORM[self.algorithm.batch_norm],
            clients=self.store.latest())
        if 'optimizer' in checkpoint:
            checkpoint['optimizer']['state'] = {}  # a client's, which the next one does not see
        to_plain(checkpoint)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take the federation's state up again, if the run is resumed."""
        restore_history(checkpoint)
        state = checkpoint.get('federated')
        if self.stream is None:
            return
        if not runner._resume:
            names = {name.removeprefix('module.') for name in checkpoint.get('state_dict', checkpoint)}
            if not names & runner.model.state_dict().keys():
                raise FedSegError('load_from names a checkpoint of another model: none of its weights has the name of '
                                  "one of this model's")
            return
        if state is None:
            raise FedSegError('the checkpoint to resume is not of a federated run: start from it with '
                              '`load_from=CHECKPOINT` instead of --resume')
        if state['partition'] != self.partition.hash:
            raise FedSegError(f'the checkpoint was trained on the partition {state["partition"][:12]}, but this run '
                              f'has {self.partition.hash[:12]}: resume with the data and partitioner of the first run')
        if state.get('type') != type(self.algorithm).__name__:
            raise FedSegError(f'the checkpoint was trained by {state.get("type")}, but this run has '
                              f'{type(self.algorithm).__name__}: resume with the algorithm of the first run, or start '
                              'from it with `load_from=CHECKPOINT`')
        if state.get('batch_norm') != BATCH_NORM[self.algorithm.batch_norm]:
            raise FedSegError('the checkpoint was trained with another `federated.algorithm.batch_norm` than '
                              f'{self.algorithm.batch_norm!r}: resume with that of the first run')
        self._algorithm_state, self._client_states = state['algorithm'], state['clients']
