"""A site's trainer: trains and evaluates what the server asks for, on images that stay here."""
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS
from torch import Tensor
from torch.utils.data import DataLoader

from fedseg_mm.algorithms.fedavg import load_weights
from fedseg_mm.config.amp import settle_amp
from fedseg_mm.datasets import ClientShard, Partitioner
from fedseg_mm.engine.backends import LocalBackend
from fedseg_mm.engine.client_state_store import ClientStateStore
from fedseg_mm.engine.hooks import ChannelsLastHook
from fedseg_mm.engine.local_trainer import LocalTrainer, TooSlow
from fedseg_mm.engine.tool_runner import ToolRunner
from fedseg_mm.errors import FedSegError
from fedseg_mm.evaluation.confusion_matrix import ConfusionMatrix
from fedseg_mm.federation import Federation
from fedseg_mm.models import check_features_once
from fedseg_mm.silos.run_config import check_received, from_json
from fedseg_mm.silos.site_config import SiteConfig
from fedseg_mm.structures import Broadcast
from fedseg_mm.structures.messages import check_fits, layout_of, unpack_tensors
from fedseg_mm.version import __version__

#: What a server calls a run, which is a folder here.
_RUN = re.compile(r'[A-Za-z0-9][A-Za-z0-9_-]{0,63}')


class OwnImagesPartitioner(Partitioner):
    """All images of this machine for the one client that it is; the others' are elsewhere.

    Args:
        client (int): The client's id.
        num_clients (int): Clients of the federation.
        name (str): The client's name.
        annotates (Sequence[str], optional): Its annotated classes. Defaults
            to None: all.
        unannotated (int, optional): Its masks' value for unannotated pixels.
            Defaults to None: there are none.

    Raises:
        FedSegError: There is no such client.
    """

    def __init__(self, client: int, num_clients: int, name: str = '', annotates: Sequence[str] | None = None,
                 unannotated: int | None = None) -> None:
        super().__init__(num_clients)
        self.client = self._integer('client', client, 0)
        if self.client >= num_clients:
            raise FedSegError(f'client {client} is not one of {num_clients}, which count from 0')
        self.name, self.annotates, self.unannotated = name, annotates, unannotated

    def unannotated_values(self, image_names, class_names) -> np.ndarray | None:
        if self.unannotated is None:
            return None
        return np.full(len(image_names), self.unannotated)

    def make_clients(self, presence, image_names, class_names, rng) -> tuple[ClientShard, ...]:
        unknown = [name for name in self.annotates or () if name not in class_names]
        if unknown:
            raise FedSegError(f'site.yaml says that {self.name} annotates {unknown[0]}, which is not among the '
                              f"federation's classes {', '.join(class_names)}: change `annotates`, or tell whoever "
                              'leads the federation')
        classes = tuple(range(len(class_names))) if self.annotates is None else tuple(
            sorted(class_names.index(name) for name in self.annotates))
        own = ClientShard(tuple(range(len(presence))), classes, self.name, self.unannotated)
        return tuple(own if client == self.client else ClientShard((), (), str(client))
                     for client in range(self.num_clients))


class SiteBackend(LocalBackend):
    """The images of one site, for :class:`SiteTrainer`, which trains when it is asked to."""

    def warnings(self, summary, batch_size):
        # of the others, nothing is known here
        own = next(shard for shard in summary.partition.clients if shard.indices or shard.classes)
        partition = replace(summary.partition, clients=(own, ))
        return [sentence for sentence in replace(summary, partition=partition).warnings(batch_size)
                if not sentence.startswith(('No client annotates', 'No image shows'))]

    def train(self, cohort, broadcast):
        raise NotImplementedError('a site trains when its server asks')


class SiteTrainer:
    """Does a site's part of a run.

    Args:
        name (str): The site's name.
        config (SiteConfig): What it has.
        folder (Path): Where runs keep what clients keep, and their logs.
    """

    def __init__(self, name: str, config: SiteConfig, folder: Path) -> None:
        self.name, self.config, self.folder = name, config, folder

    def setup(self, message: dict) -> dict:
        """Build what the run needs, and say what is here.

        Args:
            message (dict): The run's config and this site's place in it.

        Returns:
            dict: Number of images, classes annotated, and what else
            ``tell`` allows.

        Raises:
            FedSegError: The config is refused, or does not go with what is
                here.
        """
        if message.get('version') != __version__:
            raise FedSegError(f'the server has fedseg_mm {message.get("version")}, but {self.name} has {__version__}: '
                              'install the same version at both ends')
        if not isinstance(message.get('run'), str) or not _RUN.fullmatch(message['run']):
            raise FedSegError(f'the server calls the run {message.get("run")!r:.80}, which is no name of a folder here')
        check_received(message['config'])
        received = from_json(message['config'])
        classes = tuple(received['classes'])
        loader = dict(num_workers=self.config.workers, **received['train_dataloader'],
                      dataset=self.config.dataset('train', classes, received['train_pipeline']))
        federated = dict(received['federated'], partitioner=dict(
            type=OwnImagesPartitioner, client=message['client'], num_clients=message['clients'], name=self.name,
            annotates=self.config.annotates, unannotated=self.config.unannotated), backend=dict(type=SiteBackend))
        work_dir = self.folder / message['run']
        cfg = Config(dict(
            model=received['model'], optim_wrapper=received['optim_wrapper'], work_dir=str(work_dir),
            default_scope='mmseg', randomness=dict(seed=received['seed']), experiment_name=self.name,
            default_hooks=dict.fromkeys(('timer', 'logger', 'param_scheduler', 'checkpoint')),
            visualizer=dict(type='SegLocalVisualizer', vis_backends=[], name=self.name), log_level='WARNING'))
        settle_amp(cfg)
        runner = ToolRunner.from_cfg(Config(dict(cfg, optim_wrapper=None)))
        self.runner = runner
        self.model, self.client = runner.model, message['client']
        self.federation = Federation(**federated)
        self.federation.setup(runner, self.model, loader)
        if received['channels_last']:
            ChannelsLastHook().before_train(runner)
        self.federation.algorithm.start(self.model)
        check_features_once(self.model)
        self.store = ClientStateStore(work_dir / 'clients')
        self._bring(message.get('before'))
        backend: LocalBackend = self.federation.backend  # type: ignore[assignment]
        self.trainer = LocalTrainer(self.model, runner.build_optim_wrapper(cfg.optim_wrapper), backend.stream,
                                    self.federation.algorithm, self.store, runner.seed)
        self._shared = dict(self.federation.algorithm.shared_weights)
        self._val = None if self.config.val is None else DATASETS.build(
            self.config.dataset('val', classes, received['val_pipeline']))
        return self._describe(classes)

    def _bring(self, before: dict | None) -> None:
        """Have what the client kept in the run that this one goes on from, unless it is here: that run may go on too.

        Raises:
            FedSegError: It is not kept, or what the server asks for is no run.
        """
        if before is None or self.client in self.store.latest():
            return
        run, state = before.get('run'), before.get('state')
        if not isinstance(run, str) or not _RUN.fullmatch(run) or not isinstance(state, int):
            raise FedSegError(f'the server goes on from the run {run!r:.80}, which is no name of a folder here')
        other = ClientStateStore(self.folder / run / 'clients')
        if not other.has(self.client, state):
            raise FedSegError(f'{self.name} does not keep the state of round {state} in {other.folder}: bring back '
                              'the folder, or start the run anew')
        self.store.take(other, {self.client: state})

    def _describe(self, classes: tuple[str, ...]) -> dict:
        summary = self.federation.summary
        shard = summary.partition.clients[self.client]
        told = dict(images=len(shard.indices), val_images=len(self._val) if self._val is not None else 0,
                    annotates=[classes[index] for index in shard.classes], unannotated=shard.unannotated,
                    parameters=layout_of(self._shared))
        if 'pixels' in self.config.tell:
            void = 0 if summary.void_counts is None else int(summary.void_counts.sum())
            told.update(pixels=summary.class_counts.sum(0).tolist(), void=void,
                        unannotated_pixels=int(summary.unannotated_counts.sum()))
        return told

    def train(self, weights: bytes, rest: bytes, unshared: bytes | None, state: int | None, checkpointed: list[int],
              time_limit: float | None) -> tuple[bytes, bool]:
        """Train the client for one round.

        Args:
            weights (bytes): The shared weights.
            rest (bytes): The broadcast without them.
            unshared (bytes, optional): What is not shared, for a client that
                keeps nothing yet.
            state (int, optional): Rounds behind what the client keeps, as the
                server knows it; None where it keeps nothing.
            checkpointed (list[int]): Rounds behind the server's checkpoints,
                whose states must be kept.
            time_limit (float, optional): Seconds that it may take.

        Returns:
            tuple[bytes, bool]: The update, and whether the client keeps a
            state of this round.

        Raises:
            FedSegError: It cannot; says why.
        """
        broadcast = self._broadcast(weights, rest, unshared)
        self._check_state(state)  # before anything is removed: another checkpoint may need it
        self.store.rewind(state or 0)
        # the state before this round stays until the next one: nobody knows yet whether the server gets the update
        self.store.checkpointed = tuple(checkpointed)
        self.store.settle()
        try:
            update = self.trainer.fit(self.client, broadcast, time_limit)
        except TooSlow as error:
            raise FedSegError(str(error)) from error
        except Exception:
            # this process goes on: what a step has left half done, and workers that may have ended, are of no use
            self.trainer.optim_wrapper.zero_grad()
            self.trainer.stream.close()
            raise
        return update.to_bytes(), self.store.has(self.client, broadcast.round + 1)

    def _check_state(self, state: int | None) -> None:
        """Refuse to go on from a state that is not here.

        Raises:
            FedSegError: Says which is, and what to do.
        """
        if self.store.latest(state or 0).get(self.client) != state:
            raise FedSegError(f'{self.name} keeps the state of round {self.store.latest().get(self.client)}, but the '
                              f'server goes on from round {state}: bring back {self.store.folder}, or start the run '
                              'anew')

    def _broadcast(self, weights: bytes, rest: bytes, unshared: bytes | None) -> Broadcast:
        device = next(self.model.parameters()).device
        broadcast = Broadcast.from_bytes(rest, {})
        own = dict.fromkeys(self.federation.algorithm.unshared)
        kept = unpack_tensors(unshared) if unshared is not None else {
            name: tensor for name, tensor in self.model.state_dict().items() if name in own}
        return replace(broadcast, weights=self._tensors(weights),
                       extras={name: tensor.to(device) for name, tensor in broadcast.extras.items()},
                       unshared={name: tensor.clone().to(device) for name, tensor in kept.items()})

    def _tensors(self, weights: bytes) -> dict[str, Tensor]:
        tensors = unpack_tensors(weights)
        check_fits(tensors, self._shared, 'the broadcast')
        # in the model's own order and layout in memory, on which sums depend
        return {name: torch.empty_like(like).copy_(tensors[name]) for name, like in self._shared.items()}

    @torch.no_grad()
    def evaluate(self, weights: bytes, unshared: bytes | None, state: int | None) -> dict:
        """Evaluate the global model, with what the client keeps to itself, on the site's own images.

        Args:
            weights (bytes): The shared weights.
            unshared (bytes, optional): What is not shared, for a client that
                keeps nothing yet.
            state (int, optional): Rounds behind what the client keeps, as the
                server knows it: there may be a later one, of a round that the
                server goes back behind.

        Returns:
            dict: ``matrix``, pixels by truth and prediction (C, C).

        Raises:
            FedSegError: There are no images for it.
        """
        if self._val is None:
            raise FedSegError(f'{self.name} has no `val` in its site.yaml')
        own: dict[str, Tensor] = {}
        if unshared is not None:
            own = unpack_tensors(unshared)
        elif state is not None:
            self._check_state(state)
            own = self.store.load(self.client, rounds=state).get('weights', {})
        load_weights(self.model, {**self.model.state_dict(), **self._tensors(weights), **own})
        self.model.eval()
        metric = ConfusionMatrix()
        metric.dataset_meta = self._val.metainfo
        for batch in DataLoader(self._val, 1, num_workers=self.config.workers, collate_fn=pseudo_collate):
            metric.process({}, [sample.to_dict() for sample in self.model.val_step(batch)])
        metric.compute_metrics(metric.results)
        return dict(matrix=metric.matrices[0].tolist())
