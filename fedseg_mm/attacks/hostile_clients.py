"""The hostile clients of a federation: who they are, and where their attacks take hold of a round."""
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from torch import Tensor

from fedseg_mm.attacks.attack import Attack, HonestUpdates
from fedseg_mm.errors import FedSegError
from fedseg_mm.processors import ProcessorContext
from fedseg_mm.seeding import derive_seed, derived_generator
from fedseg_mm.structures import Broadcast, ClientFailure, ClientUpdate

if TYPE_CHECKING:
    from fedseg_mm.algorithms import FedAvg


class HostileClients:
    """Applies the attacks of ``federated.attacks``; without any, updates pass as they are.

    Args:
        attacks (Sequence[Attack]): In the order of the config; a client that
            several of them name belongs to the first.
    """

    def __init__(self, attacks: Sequence[Attack] = ()) -> None:
        self.attacks = tuple(attacks)
        self.attack_of: dict[int, Attack] = {}
        self.seed = 0
        self._num_classes = 0

    @property
    def collude(self) -> bool:
        """Whether some of them know what the honest clients send."""
        return any(attack.colludes for attack in self.attacks)

    def setup(self, names: Sequence[str], num_classes: int, seed: int) -> None:
        """Decide who is hostile.

        Args:
            names (Sequence[str]): What each client is called.
            num_classes (int): Classes of the data set.
            seed (int): Seed of the run.

        Raises:
            FedSegError: An attack names a client that is not there, or leaves
                none hostile.
        """
        self.seed, self._num_classes, self.attack_of = seed, num_classes, {}
        numbers = {name: client for client, name in enumerate(names)}
        for attack in self.attacks:
            for client in attack.clients or ():
                number = client if isinstance(client, int) else numbers.get(client, -1)
                if not 0 <= number < len(names):
                    raise FedSegError(f'federated.attacks: {type(attack).__name__} names the client {client!r}, but '
                                      f'the {len(names)} clients are {names[0]} to {names[-1]}')
                self.attack_of.setdefault(number, attack)
        order = iter(client for client in derived_generator(seed, 'hostile').permutation(len(names)).tolist()
                     if client not in self.attack_of)
        for attack in self.attacks:
            if attack.share is None:
                continue
            wanted = round(attack.share * len(names))
            if not wanted:
                raise FedSegError(f'federated.attacks: {type(attack).__name__} with share={attack.share:g} makes none '
                                  f'of the {len(names)} clients hostile: raise it, or list clients')
            for _, client in zip(range(wanted), order):
                self.attack_of[client] = attack

    def sentence(self, names: Sequence[str]) -> str:
        """Who attacks and how, for the console."""
        kinds = [f'{type(attack).__name__} by {", ".join(names[client] for client in own)}' for attack in self.attacks
                 if (own := sorted(client for client, one in self.attack_of.items() if one is attack))]
        return f'Hostile clients, as set in federated.attacks: {"; ".join(kinds)}.'

    # --- at the client ------------------------------------------------------
    def relabel(self, client: int) -> tuple[int, ...] | None:
        """Which class each class is labelled as at this client; None where labels are true."""
        attack = self.attack_of.get(client)
        return None if attack is None else attack.relabel(self._num_classes)

    @torch.no_grad()
    def alter(self, update: ClientUpdate, broadcast: Broadcast, trained: Collection[str]) -> ClientUpdate:
        """Change what a hostile client sends, before update processors see it.

        Args:
            update (ClientUpdate): The honest update.
            broadcast (Broadcast): What the client was given.
            trained (Collection[str]): Names of the weights that learn.
        """
        attack = self.attack_of.get(update.client)
        if attack is None or attack.colludes:
            return update
        generator = torch.Generator().manual_seed(
            derive_seed(self.seed, f'attack {type(attack).__name__}', broadcast.round, update.client))
        change = attack.alter(_change(update.weights, broadcast.weights, trained), generator)
        weights = _moved(update.weights, broadcast.weights, change)
        extras = {name: tensor.clone() for name, tensor in update.extras.items() if tensor.is_floating_point()}
        extras = {**update.extras, **(attack.alter(extras, generator) if extras else {})}
        finite = all(bool(tensor.isfinite().all()) for tensor in (*change.values(), *extras.values())
                     if tensor.is_floating_point())
        return replace(update, weights=weights, extras=extras, is_finite=update.is_finite and finite)

    # --- at the server ------------------------------------------------------
    def join(self, updates: Iterable[ClientUpdate | ClientFailure], cohort: Sequence[int], broadcast: Broadcast,
             algorithm: 'FedAvg') -> Iterator[ClientUpdate | ClientFailure]:
        """The updates of a round, those of colluding clients last: they send what they make of the others'.

        Args:
            updates (Iterable[ClientUpdate or ClientFailure]): Of the clients
                that this process has trained, as they come.
            cohort (Sequence[int]): All clients of the round.
            broadcast (Broadcast): What they were given.
            algorithm (FedAvg): It decodes and encodes updates.
        """
        colluding = {client for client in cohort if (attack := self.attack_of.get(client)) and attack.colludes}
        if not colluding:
            yield from updates
            return
        seen, held = _Moments(), []
        for update in updates:
            if isinstance(update, ClientFailure) or not update.is_finite:
                yield update
            elif update.client in colluding:
                held.append(replace(update, weights={}, unshared={}, payload=None))  # not its live tensors
            else:
                seen.add(self._sent(update, broadcast, algorithm))
                yield update
            del update
        seen.all_reduce(next(iter(broadcast.weights.values())).device)
        honest = HonestUpdates(seen.number, len(colluding), *seen.result())
        for update in held:
            yield self._send(update, self.attack_of[update.client].craft(honest), broadcast, algorithm)

    @staticmethod
    @torch.no_grad()
    def _sent(update: ClientUpdate, broadcast: Broadcast, algorithm: 'FedAvg') -> dict[str, Tensor]:
        """What attackers see of an update: the change of what learns, and what is sent beside it."""
        extras = {f'extras {name}': tensor for name, tensor in update.extras.items() if tensor.is_floating_point()}
        return {**_change(algorithm.restore(update).weights, broadcast.weights, algorithm.trained), **extras}

    @staticmethod
    @torch.no_grad()
    def _send(update: ClientUpdate, crafted: dict[str, Tensor], broadcast: Broadcast,
              algorithm: 'FedAvg') -> ClientUpdate:
        """As a client would send it: what does not learn has not moved, and update processors see it."""
        change = {name: crafted[name] for name in algorithm.trained if name in crafted}
        extras = {name: crafted.get(f'extras {name}', tensor) for name, tensor in update.extras.items()}
        weights = _moved(broadcast.weights, broadcast.weights, change)
        update = replace(update, weights=weights, extras=extras)
        if not algorithm.processors.processors:
            return update
        context = ProcessorContext(algorithm.federation.seed, broadcast.round, update.client,
                                   frozenset(algorithm.trained), algorithm.update_weight(update))
        payload = algorithm.processors.at_client(algorithm.change_of(weights, broadcast.weights), context)
        others = {name: tensor for name, tensor in weights.items() if not tensor.is_floating_point()}
        return replace(update, weights=others, payload=payload)


def _change(weights: Mapping[str, Tensor], received: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    names = list(names)
    return dict(zip(names, torch._foreach_sub([weights[name] for name in names], [received[name] for name in names])))


def _moved(weights: Mapping[str, Tensor], received: Mapping[str, Tensor],
           change: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, where those that changed are what was received and the change."""
    return {**weights, **dict(zip(change, torch._foreach_add(
        [received[name] for name in change], list(change.values()))))}


class _Moments:
    """Running mean and spread of updates (Welford), two sets of tensors for any number of them."""

    def __init__(self) -> None:
        self.number = 0
        self._mean: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}  # sums of squared distances to the mean

    def add(self, change: Mapping[str, Tensor]) -> None:
        if not self._mean:
            self._mean = {name: torch.zeros_like(tensor) for name, tensor in change.items()}
            self._squares = {name: torch.zeros_like(tensor) for name, tensor in change.items()}
        self.number += 1
        mean, squares = list(self._mean.values()), list(self._squares.values())
        new = [change[name] for name in self._mean]
        before = torch._foreach_sub(new, mean)
        torch._foreach_add_(mean, before, alpha=1 / self.number)
        torch._foreach_addcmul_(squares, before, torch._foreach_sub(new, mean))

    def all_reduce(self, device: torch.device) -> None:
        """Join the moments of all processes (Chan et al., 1983)."""
        if get_world_size() == 1:
            return
        kinds = {name: (tensor.shape, tensor.dtype) for name, tensor in self._mean.items()}
        for name, (shape, dtype) in sorted({key: kind for part in all_gather_object(kinds)
                                            for key, kind in part.items()}.items()):
            for moments in (self._mean, self._squares):
                moments.setdefault(name, torch.zeros(shape, dtype=dtype, device=device))
        number = torch.tensor(float(self.number), dtype=torch.float64, device=device)
        all_reduce(number)
        own, self.number = self.number, int(number)
        for name in sorted(self._mean):
            mean = self._mean[name] * (own / max(self.number, 1))
            all_reduce(mean)
            squares = self._squares[name] + own * (self._mean[name] - mean) ** 2
            all_reduce(squares)
            self._mean[name], self._squares[name] = mean, squares

    def result(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Mean and standard deviation; nothing where nobody was seen."""
        return self._mean, {name: (squares / self.number).sqrt_() for name, squares in self._squares.items()}
