"""Clients train here, and some of them are hostile: to try aggregators, never to train a model for use."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import floor
from typing import TYPE_CHECKING

import torch
from mmengine.dist import get_world_size
from torch import Tensor

from fedseg_mm.attacks import Attack, HonestUpdates
from fedseg_mm.engine.backends.local_backend import LocalBackend
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import ATTACKS, BACKENDS, build
from fedseg_mm.seeding import derive_seed, derived_generator
from fedseg_mm.structures import Broadcast, ClientUpdate
from fedseg_mm.validation import check_number

if TYPE_CHECKING:
    from fedseg_mm.federation import Federation


@BACKENDS.register_module()
class HostileBackend(LocalBackend):
    """:class:`LocalBackend` with hostile clients, which send what an attack makes of their updates.

    Who is hostile follows from the run's seed. The attack changes the update
    before any aggregator sees it; hostile clients of a round train after the
    honest ones, because some attacks know these' updates.

    Args:
        attack (dict): What they do, e.g. ``dict(type='SignFlip')``.
        share (float): Share of all clients that is hostile, rounded down to
            whole clients. Defaults to 0.2.

    Raises:
        FedSegError: The attack is not known, or ``share`` is not from 0 to 1.
    """

    def __init__(self, attack: dict, share: float = 0.2) -> None:
        super().__init__()
        self.attack: Attack = build(ATTACKS, attack, 'federated.backend.attack')
        self.share = check_number('HostileBackend.share', share, least=0, most=1)
        self.hostile: frozenset[int] = frozenset()

    def setup(self, runner, dataloader: dict, federation: 'Federation') -> None:
        if get_world_size() > 1:
            raise FedSegError('HostileBackend needs one process, because an attack may know all updates of a round: '
                              'leave out --launcher')
        if federation.processors.processors:
            raise FedSegError('HostileBackend attacks updates as they are aggregated: leave out federated.processors')
        super().setup(runner, dataloader, federation)
        clients = len(federation.shards)
        number = floor(self.share * clients + 1e-9)
        chosen = derived_generator(federation.seed, 'hostile').permutation(clients)[:number]
        self.hostile = frozenset(chosen.tolist())
        names = ', '.join(federation.client_name(client) for client in sorted(self.hostile))
        runner.logger.warning(f'{number} of {clients} clients are hostile ({type(self.attack).__name__}): '
                              f'{names or "none"}.')

    def _share(self, cohort: Sequence[int]) -> list[int]:
        return sorted(super()._share(cohort), key=lambda client: client in self.hostile)

    def train(self, cohort: Sequence[int], broadcast: Broadcast) -> Iterator[ClientUpdate]:
        honest, hostile = HonestUpdates(), sum(client in self.hostile for client in cohort)
        with self._flipped_labels():
            for update in super().train(cohort, broadcast):
                if update.client not in self.hostile:
                    if self.attack.needs_honest and hostile and update.is_finite:
                        honest.add(self._delta(update, broadcast))
                    yield update
                else:
                    yield self._attacked(update, broadcast, honest, len(cohort), hostile)
                del update

    def _delta(self, update: ClientUpdate, broadcast: Broadcast) -> dict[str, Tensor]:
        names = [name for name in self.federation.algorithm.trained if name in update.weights]
        return dict(zip(names, torch._foreach_sub([update.weights[name] for name in names],
                                                  [broadcast.weights[name] for name in names])))

    @torch.no_grad()
    def _attacked(self, update: ClientUpdate, broadcast: Broadcast, honest: HonestUpdates, cohort: int,
                  hostile: int) -> ClientUpdate:
        seed = derive_seed(self.federation.seed, 'attack', broadcast.round, update.client)
        delta = self.attack.delta(self._delta(update, broadcast), honest, cohort, hostile,
                                  torch.Generator().manual_seed(seed))
        weights = {name: broadcast.weights[name] + change for name, change in delta.items()}
        return replace(update, weights={**update.weights, **weights})

    @contextmanager
    def _flipped_labels(self) -> Iterator[None]:
        """Hostile clients train on the labels that the attack makes of theirs."""
        if type(self.attack).labels is Attack.labels:
            yield
            return
        model, classes = self.trainer.model, len(self.federation.summary.class_names)
        fit, hostile = self.trainer.fit, False

        def fit_and_note(client: int, broadcast: Broadcast) -> ClientUpdate:
            nonlocal hostile
            hostile = client in self.hostile
            return fit(client, broadcast)

        def flip(module, args, data):
            if hostile:
                for sample in data['data_samples']:
                    sample.gt_sem_seg.data = self.attack.labels(sample.gt_sem_seg.data, classes)
                    annotated = torch.tensor(sample.metainfo['annotated_classes'])
                    flipped = sorted(self.attack.labels(annotated, classes).tolist())
                    sample.set_metainfo(dict(annotated_classes=tuple(flipped)))
            return data

        handle = model.data_preprocessor.register_forward_hook(flip)
        self.trainer.fit = fit_and_note  # type: ignore[method-assign]
        try:
            yield
        finally:
            handle.remove()
            del self.trainer.fit
