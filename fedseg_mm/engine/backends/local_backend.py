"""All clients train here, one after the other."""
import copy
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import broadcast_object_list, get_rank, get_world_size, is_main_process
from mmengine.model import is_model_wrapper
from mmengine.registry import FUNCTIONS
from mmseg.registry import DATASETS
from torch.utils.data import DataLoader

from fedseg_mm.checks import check_channels, check_model, first_process_first
from fedseg_mm.datasets import (
    ClientBatchSampler,
    ClientDataset,
    ClientStream,
    PartitionSummary,
    Pass,
    partition_dataset,
)
from fedseg_mm.engine.backends.backend import Backend
from fedseg_mm.engine.client_state_store import ClientStateStore
from fedseg_mm.engine.local_trainer import LocalTrainer, TooSlow
from fedseg_mm.engine.share_clients import share_clients
from fedseg_mm.errors import FedSegError
from fedseg_mm.models import check_features_once, check_losses
from fedseg_mm.registry import BACKENDS
from fedseg_mm.resume import CLIENTS_FOLDER, checkpoint_folder, checkpoints_of, written_last
from fedseg_mm.structures import Broadcast, ClientFailure, ClientUpdate
from fedseg_mm.validation import check_keys, check_number, check_positive

if TYPE_CHECKING:
    from fedseg_mm.federation import Federation

#: Keys of ``train_dataloader`` that a federation takes over as they are.
LOADER_KEYS = ('pin_memory', 'prefetch_factor', 'timeout', 'multiprocessing_context')
#: Keys of ``train_dataloader`` that the clients' own sampling replaces.
REPLACED_KEYS = ('sampler', 'batch_sampler', 'persistent_workers')


@BACKENDS.register_module()
class LocalBackend(Backend):
    """One warm model and one pool of workers for all clients, in this process and its peers.

    With several processes (``--launcher``), each trains whole clients of
    every cohort. What clients keep from round to round is on disk, in
    ``clients/`` of the work dir.

    Args:
        client_time_limit (float, optional): Seconds after which a client is
            left out of the round, looked at after each of its steps, above 0;
            runs with a limit depend on how fast the machine is. Defaults to
            None: as long as it takes.

    Raises:
        FedSegError: ``client_time_limit`` is not such a number.
    """

    stream: ClientStream
    store: ClientStateStore
    trainer: LocalTrainer

    def __init__(self, client_time_limit: float | None = None) -> None:
        self.client_time_limit = client_time_limit
        if client_time_limit is not None:
            check_number('federated.backend.client_time_limit', client_time_limit, above=0)
        self._client_states: dict[int, int] | None = None

    # --- before training ----------------------------------------------------
    def setup(self, runner, dataloader: dict, federation: 'Federation') -> None:
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
        check_model(model, dataset, loader['batch_size'])
        # the first process scans the labels, the others find what it cached
        with first_process_first():
            summary = partition_dataset(dataset, federation.partitioner, num_workers)
        federation.take_clients(summary)
        self.federation = federation
        self._check_losses(runner, model, summary)
        check_channels(model, summary.channels)
        for sentence in self.warnings(summary, loader['batch_size']):
            runner.logger.warning(sentence)

        batch_sampler = ClientBatchSampler(federation.shards, loader['batch_size'], federation.local_epochs,
                                           loader.get('drop_last', True))
        batch_sampler.relabel = federation.hostile.relabel
        collate_fn = loader.get('collate_fn', pseudo_collate)
        if isinstance(collate_fn, dict):
            collate_type = collate_fn.pop('type')
            function = FUNCTIONS.get(collate_type) if isinstance(collate_type, str) else collate_type
            collate_fn = partial(function, **collate_fn)
        self.stream = ClientStream(clients_view, batch_sampler, num_workers, collate_fn,
                                   **{'pin_memory': torch.cuda.is_available(),
                                      **{key: loader[key] for key in LOADER_KEYS if key in loader}})

    def warnings(self, summary: PartitionSummary, batch_size: int) -> list[str]:
        """What of the clients' data will hurt the training, a sentence each."""
        return summary.warnings(batch_size)

    def _check_losses(self, runner, model, summary: PartitionSummary) -> None:
        """Refuse losses that fail, and warn of those that learn what nobody knows.

        Raises:
            FedSegError: A loss fails; names it.
        """
        hides = any(part.unannotated is not None or len(part.classes) < len(summary.class_names)
                    for shard in self.federation.shards for part in (getattr(shard, 'parts', ()) or (shard, )))
        has_void = summary.void_counts is not None and bool(summary.void_counts.any())
        faults, warnings = check_losses(model, hides, has_void)
        if faults:
            raise FedSegError('\n'.join(faults))
        for sentence in warnings:
            runner.logger.warning(sentence)

    @property
    def loader(self) -> DataLoader:
        return self.stream.loader

    def start(self, runner, federation: 'Federation', rounds: int) -> None:
        self.runner, self.federation, self.rounds = runner, federation, rounds
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        folder = [self._open_states(runner.epoch) if is_main_process() else '']
        broadcast_object_list(folder)
        self.store = ClientStateStore(Path(runner.work_dir) / folder[0])
        self.store.checkpointed = (runner.epoch, )
        self._last_checkpoint = written_last(self.runner.work_dir)
        check_features_once(model)
        self.trainer = LocalTrainer(model, runner.optim_wrapper, self.stream, federation.algorithm, self.store,
                                    runner.seed, federation.hostile)
        if (options := runner.cfg.get('compile')):
            self.trainer.compile(is_model_wrapper(runner.model), **({} if options is True else options))

    def _open_states(self, rounds: int) -> str:
        """The name of the folder of the clients' states, which are those of the checkpoint, or none.

        A checkpoint in the work dir may need states that this run has no use
        for. They stay as they are until this run has a checkpoint of its own,
        which goes by a folder of its own.

        Args:
            rounds (int): Rounds that are finished.

        Raises:
            FedSegError: What the clients had kept is not there any more.
        """
        work_dir, resumed = Path(self.runner.work_dir), self.runner.train_loop.saved.resumed
        own = resumed is None or resumed.path.parent.resolve() == checkpoint_folder(
            self.runner.cfg, self.runner.work_dir).resolve()
        name = 'clients' if resumed is None else resumed.folder
        before = ClientStateStore((work_dir if own else resumed.path.parent) / name)
        wanted = self._client_states
        if resumed is not None and wanted is not None and wanted != (found := before.latest(rounds)):
            lost = [client for client, state in wanted.items() if found.get(client) != state]
            raise FedSegError(f'the state of client {lost[0] if lost else min(found)} in {before.folder} is not '
                              'that of the checkpoint: bring back the folder of the first run, or start anew from the '
                              'weights with `load_from=CHECKPOINT` instead of --resume')
        if own and not any(
                state > rounds and before.has(client, state)
                for file in checkpoints_of(self.runner.cfg, self.runner.work_dir) if file.folder == name
                for client, state in file.clients.items()):
            before.rewind(rounds)
            return name
        new, number = work_dir / 'clients', 2
        while new.exists():
            new, number = work_dir / f'clients_{number}', number + 1
        ClientStateStore(new).take(before, wanted or {} if resumed is not None else {})
        return new.name

    # --- rounds -------------------------------------------------------------
    def train(self, cohort: Sequence[int], broadcast: Broadcast) -> Iterator[ClientUpdate | ClientFailure]:
        self._note_checkpoint(broadcast.round)
        if not self.stream.is_planned:
            self.stream.plan(self._passes(broadcast.round))
        self.waited = self.stream.waited = 0.0
        for client in self._share(cohort):
            self.runner.call_hook('before_client', client=client)
            update: ClientUpdate | ClientFailure
            try:
                update = self.trainer.fit(client, broadcast, self.client_time_limit)
            except TooSlow as error:
                update = ClientFailure(client, str(error))
            self.waited = self.stream.waited
            yield update
            del update

    def recalibrate(self, round: int, cohort: Sequence[int]) -> None:
        self.trainer.recalibrate(round, cohort)  # of several processes, each does all of it

    def _share(self, cohort: Sequence[int]) -> list[int]:
        """The clients of a cohort that this process trains."""
        costs = [self.stream.batch_sampler.num_batches(client) for client in cohort]
        return share_clients(cohort, costs, get_world_size())[get_rank()]

    def _passes(self, first: int) -> Iterator[Pass]:
        """The ways through the clients' images from a round to the last one: workers load across rounds."""
        for round in range(first, self.rounds):
            cohort = self.federation.cohort(round)
            yield from self.trainer.passes(round, cohort, self._share(cohort))

    # --- checkpoints --------------------------------------------------------
    def _note_checkpoint(self, round: int) -> None:
        """See whether there is a checkpoint of the rounds so far, whose clients' states must then be kept."""
        # the first process has written it after the round before; the others may be ahead of it
        named = [written_last(self.runner.work_dir)]
        broadcast_object_list(named)
        if named[0] != self._last_checkpoint:
            # and of the one before, in case that the last one is damaged
            self._last_checkpoint, self.store.checkpointed = named[0], (*self.store.checkpointed[-1:], round)
            if is_main_process():
                self._remove_other_states()
        self.store.settle()

    def _remove_other_states(self) -> None:
        """Remove what clients kept in the runs before, now that this one has a checkpoint of its own."""
        for folder in self.store.folder.parent.iterdir():
            if folder.name != self.store.folder.name and CLIENTS_FOLDER.fullmatch(folder.name):
                ClientStateStore(folder).remove()

    def state_dict(self) -> dict:
        return dict(clients=self.store.latest(), clients_folder=self.store.folder.name)

    def abandon_round(self, rounds: int) -> None:
        self.store.rewind(rounds)

    def load_state_dict(self, state: dict) -> None:
        self._client_states = state['clients']

    def close(self) -> None:
        self._note_checkpoint(self.runner.epoch)
        self.stream.close()
