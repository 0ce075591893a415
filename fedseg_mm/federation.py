"""The parts of a federation, put together."""
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.dist import broadcast_object_list, is_main_process
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedseg_mm.aggregators import Aggregator
from fedseg_mm.algorithms import FedAvg
from fedseg_mm.attacks import HostileClients
from fedseg_mm.datasets import ClientShard, Partition, Partitioner, PartitionSummary
from fedseg_mm.errors import Faults, FedSegError, shown
from fedseg_mm.processors import ProcessorPipeline
from fedseg_mm.registry import (
    AGGREGATORS,
    ALGORITHMS,
    ATTACKS,
    BACKENDS,
    CLIENT_SAMPLERS,
    PARTITIONERS,
    UPDATE_PROCESSORS,
    build,
    check_arguments,
    type_name,
)
from fedseg_mm.samplers import ClientSampler, UniformSampler
from fedseg_mm.structures import ClientUpdate, FederationInfo
from fedseg_mm.validation import check_positive

if TYPE_CHECKING:
    from fedseg_mm.engine.backends import Backend


def build_partitioner(partitioner: dict | str) -> Partitioner:
    """Build the config's ``federated.partitioner``; a path is that of a manifest.

    Raises:
        FedSegError: A type, key or value cannot be used; names it.
    """
    if isinstance(partitioner, str):
        partitioner = dict(type='ManifestPartitioner', manifest=partitioner)
    return build(PARTITIONERS, partitioner, 'federated.partitioner')


def build_federation(settings: Mapping) -> 'Federation':
    """The federation of a config's ``federated``.

    Raises:
        FedSegError: A key or value cannot be used; names it.
    """
    check_arguments(Federation, dict(settings), 'federated')
    return Federation(**settings)


class Federation:
    """What a config's ``federated = dict(...)`` says: who trains what, how often, by which method, and where.

    Args:
        partitioner (dict or str): Who holds what, e.g.
            ``dict(type='ClassPartitioner', num_clients=22,
            classes_per_client=1)``, or the path of a manifest.
        clients_per_round (int): Size of a round's cohort.
        local_epochs (int): Passes of a client over its images per round.
            Defaults to 1.
        algorithm (dict): The federated method. Defaults to FedAvg.
        sampler (dict): Who takes part in a round. Defaults to
            ``UniformSampler``.
        aggregator (dict): How the updates of a cohort become one. Defaults to
            ``WeightedMean``.
        processors (list[dict]): What is done to an update before it leaves
            its client, and to the combined one, in order. Defaults to
            nothing.
        attacks (list[dict]): Clients that are made hostile, to measure a
            defence. Defaults to none.
        backend (dict): Where clients train. Defaults to ``LocalBackend``.
        min_clients (int): Updates that a round needs; with fewer good ones,
            the global model stays as it was. Defaults to 1.
        max_failed_rounds (int): Rounds in a row with too few updates, at
            which the training ends with an error. Defaults to 1: the first.

    Raises:
        FedSegError: A type, key or value cannot be used; names it.
    """

    #: What the backend found out about the clients' data.
    summary: PartitionSummary
    #: The global model, outside of rounds; in one, the local backend trains clients with it.
    model: nn.Module
    #: What each client trains on.
    shards: tuple[ClientShard, ...]

    def __init__(self, partitioner: dict | str, clients_per_round: int, local_epochs: int = 1,
                 algorithm: dict | None = None, sampler: dict | None = None, aggregator: dict | None = None,
                 processors: Sequence[dict] = (), backend: dict | None = None, min_clients: int = 1,
                 max_failed_rounds: int = 1, attacks: Sequence[dict] = ()) -> None:
        self.clients_per_round = clients_per_round
        self.local_epochs = local_epochs
        self.min_clients = min_clients
        self.max_failed_rounds = max_failed_rounds
        #: Rounds in a row, up to the last one, of which the global model took nothing.
        self.failed_rounds = 0
        self._aggregator = aggregator or dict(type='WeightedMean')
        faults = Faults()
        with faults:
            check_positive('federated.clients_per_round', clients_per_round)
        with faults:
            check_positive('federated.local_epochs', local_epochs)
        with faults:
            check_positive('federated.min_clients', min_clients)
        with faults:
            check_positive('federated.max_failed_rounds', max_failed_rounds)
        with faults:
            self.partitioner = build_partitioner(partitioner)
        with faults:
            self.algorithm: FedAvg = build(ALGORITHMS, algorithm or dict(type='FedAvg'), 'federated.algorithm')
        with faults:
            self.sampler: ClientSampler = build(
                CLIENT_SAMPLERS, sampler or dict(type='UniformSampler'), 'federated.sampler')
        with faults:
            self.make_aggregator()
        with faults:
            self.processors = self._make_processors(processors)
        with faults:
            self.hostile = self._make_hostile(attacks)
        with faults:
            self.backend: Backend = build(BACKENDS, backend or dict(type='LocalBackend'), 'federated.backend')
        faults.report()
        self._check_parts()
        if not self.sampler.takes_all:
            self._check_size(self._clients_per_round)
        self.seed = 0
        self._resumed: dict | None = None
        #: Where noise is secret, who takes part is too: it is drawn anew in every process that trains.
        self._cohort_seed: int | None = None

    @staticmethod
    def _make_processors(processors: Sequence[dict]) -> ProcessorPipeline:
        if not isinstance(processors, (list, tuple)):
            raise FedSegError(f'federated.processors must be a list of dicts, but is {processors!r}')
        return ProcessorPipeline([build(UPDATE_PROCESSORS, processor, f'federated.processors.{place}')
                                  for place, processor in enumerate(processors)])

    @staticmethod
    def _make_hostile(attacks: Sequence[dict]) -> HostileClients:
        if not isinstance(attacks, (list, tuple)):
            raise FedSegError(f'federated.attacks must be a list of dicts, but is {attacks!r}')
        return HostileClients([build(ATTACKS, attack, f'federated.attacks.{place}')
                               for place, attack in enumerate(attacks)])

    def _check_parts(self) -> None:
        """Refuse parts that make no sense together.

        Raises:
            FedSegError: Names them.
        """
        algorithm, name = self.algorithm, type(self.algorithm).__name__
        if algorithm.is_bound and (self.processors.processors or type_name(self._aggregator['type']) != 'WeightedMean'):
            raise FedSegError(f'{name} is a bound without a federation, in which no updates are sent: leave out '
                              'federated.aggregator and federated.processors')
        if algorithm.is_bound and self.hostile.attacks:
            raise FedSegError(f'{name} is a bound without a federation, in which no updates are sent: leave out '
                              'federated.attacks')
        sparse = next((type(one).__name__ for one in self.processors.processors if one.is_sparse), None)
        if sparse is not None and self.make_aggregator().drops_extremes:
            raise FedSegError(f'federated.aggregator: {type_name(self._aggregator["type"])} leaves out the extremes of '
                              f'each coordinate, which are nearly all that clients send with {sparse}: choose another '
                              'aggregator or compression')
        if self.processors.privacy is not None:
            self.processors.privacy.check(self)
            if self.hostile.collude:
                raise FedSegError('federated.attacks: clients that collude know the updates of others, which '
                                  'DifferentialPrivacy reveals only to the server: leave out one of the two')
        if self.processors.needs_equal_weights and any(
                algorithm.update_weight(ClientUpdate(0, {}, images, 1, {})) != 1 for images in (1, 2)):
            raise FedSegError('federated.processors: noise protects a client only where every update counts alike, but '
                              f'{name} weighs them by their images: set federated.algorithm.weighting=equal')

    @property
    def _clients_per_round(self) -> int:
        return 1 if self.algorithm.pools_clients else self.clients_per_round

    def _check_size(self, size: int) -> None:
        """Refuse rounds of too few clients.

        Raises:
            FedSegError: Says how many they must have.
        """
        if size < self.min_clients:
            raise FedSegError(f'federated.min_clients={self.min_clients} is more than the {size} '
                              f'client{"s" * (size != 1)} of a round: lower it or raise federated.clients_per_round')
        self.make_aggregator().check_cohort(size)

    def make_aggregator(self) -> Aggregator:
        """A new aggregator as the config names it."""
        return build(AGGREGATORS, self._aggregator, 'federated.aggregator')

    def setup(self, runner, model: nn.Module, dataloader: dict) -> None:
        """Get ready, before the optimizer is built: a method may add parameters to the model.

        Args:
            runner (Runner): MMEngine's runner.
            model (nn.Module): Its model, without a wrapper.
            dataloader (dict): The config's ``train_dataloader``.

        Raises:
            FedSegError: The data set, loader or model cannot be federated.
        """
        self.seed = runner.seed
        self.model = model
        self.backend.setup(runner, dataloader, self)
        self.algorithm.setup(model, FederationInfo(
            len(self.shards), len(self.summary.class_names), self.seed, self.make_aggregator, self.processors))
        self.processors.setup(self.seed)

    def start(self, runner, rounds: int) -> None:
        """Take the weights that were initialised, loaded or resumed as the global model, and get ready to train.

        Args:
            runner (Runner): MMEngine's runner.
            rounds (int): Rounds of the whole run.

        Raises:
            FedSegError: What clients keep is not that of the checkpoint.
        """
        self.algorithm.start(self.model)
        if self._resumed is not None:
            self.algorithm.load_state_dict(self._resumed['algorithm'])
            self.processors.load_state_dict(self._resumed.get('processors', {}))
            self.failed_rounds = self._resumed.get('failed_rounds', 0)
            self.backend.load_state_dict(self._resumed)
        if is_main_process():
            self.partition.save(Path(runner.work_dir) / 'partition.json', self.summary.image_names,
                                self.summary.class_names)
        if (privacy := self.processors.privacy) is not None:
            privacy.trained_names = lambda: self.algorithm.trained  # type: ignore[method-assign]
            privacy.begin(self, rounds)
            for sentence in privacy.sentences(rounds):
                runner.logger.warning(sentence) if 'NO privacy' in sentence else runner.logger.info(sentence)
            if not privacy.reproducible:
                secret = [secrets.randbits(128)]
                broadcast_object_list(secret)
                self._cohort_seed = secret[0]
        self.backend.start(runner, self, rounds)
        if any(isinstance(module, _BatchNorm) for module in self.model.modules()):
            runner.logger.info(f'Batch normalisation: {self.algorithm.batch_norm.description}.')
        if self.hostile.attacks:
            runner.logger.warning(self.hostile.sentence([self.client_name(client) for client in range(
                len(self.shards))]))
        for sentence in self.algorithm.warnings(runner.optim_wrapper.optimizer, self.model):
            runner.logger.warning(sentence)

    def take_clients(self, summary: PartitionSummary) -> None:
        """Learn who the clients are; the backend calls it.

        Raises:
            FedSegError: No cohort can be drawn of them.
        """
        self.summary = summary
        self.shards = self.algorithm.shards(summary.partition)
        if self.algorithm.pools_clients:  # there is one, and nothing to draw
            self.sampler = UniformSampler()
        self.sampler.setup(self.shards, self._clients_per_round)
        if self.sampler.takes_all:
            self._check_size(len(self.shards))
        self.hostile.setup([self.client_name(client) for client in range(len(self.shards))], len(summary.class_names),
                           self.seed)

    @property
    def partition(self) -> Partition:
        """Who holds and annotates what."""
        return self.summary.partition

    def client_name(self, client: int) -> str:
        """What a client is called wherever people read of it: its name in the manifest, or its number."""
        return self.shards[client].name or str(client)

    def cohort(self, round: int) -> list[int]:
        """The clients of a round, in the order in which they train.

        Raises:
            FedSegError: The sampler draws others than there are, or one twice.
        """
        drawn = self.sampler.cohort(self.seed if self._cohort_seed is None else self._cohort_seed, round)
        cohort = [int(client) for client in drawn]  # a sampler may work with numpy's numbers
        if len(set(cohort)) < len(cohort) or not set(cohort) <= set(range(len(self.shards))):
            raise FedSegError(f'federated.sampler: {type(self.sampler).__name__} draws the clients {cohort} for round '
                              f'{round + 1}, but they are numbered from 0 to {len(self.shards) - 1}, and none may take '
                              'part twice')
        return cohort

    @property
    def min_updates(self) -> int:
        """Updates that a round needs, by the config and for the aggregator."""
        return max(self.min_clients, self.algorithm.aggregator.min_updates)

    # --- checkpoints --------------------------------------------------------
    def state_dict(self) -> dict:
        """What a checkpoint holds beside the global model."""
        return dict(partition=self.partition.hash, annotated_classes=self.summary.annotated_classes,
                    failed_rounds=self.failed_rounds, algorithm=self.algorithm.state_dict(),
                    processors=self.processors.state_dict(),
                    type=type(self.algorithm).__name__, batch_norm=self.algorithm.batch_norm.description,
                    **self.backend.state_dict())

    def resume(self, state: dict | None) -> None:
        """Go on from a checkpoint, once the training starts.

        Args:
            state (dict, optional): What :meth:`state_dict` gave; None where
                the checkpoint has none.

        Raises:
            FedSegError: Another federation has trained it; says what differs.
        """
        if state is None:
            raise FedSegError('the checkpoint to resume is not of a federated run: start from it with '
                              '`load_from=CHECKPOINT` instead of --resume')
        if not all(isinstance(state.get(key), dict) for key in ('algorithm', 'clients')):
            raise FedSegError('the checkpoint to resume lacks what a federated run keeps: start from it with '
                              '`load_from=CHECKPOINT` instead of --resume')
        if (trained_on := shown(state.get('partition'))) != self.partition.hash:
            raise FedSegError(f'the checkpoint was trained on the partition {trained_on[:12]}, but this run '
                              f'has {self.partition.hash[:12]}: resume with the data and partitioner of the first run')
        own = type(self.algorithm).__name__
        if state.get('type') != own:
            raise FedSegError(f'the checkpoint was trained by {state.get("type")}, but this run has {own}: resume with '
                              'the algorithm of the first run, or start from it with `load_from=CHECKPOINT`')
        if state.get('batch_norm') != self.algorithm.batch_norm.description:
            raise FedSegError('the checkpoint was trained with another `federated.algorithm.batch_norm`: resume with '
                              'that of the first run')
        self._resumed = state
