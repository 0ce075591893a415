"""The log of a round."""
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.dist import all_gather_object

from fedseg_mm.processors import PrivacySpent
from fedseg_mm.structures import Broadcast, ClientFailure, ClientUpdate

#: In a federation of more clients, curves are of a cohort's least, mean and greatest figure.
MOST_CURVES = 30


class RoundLog:
    """Collects one round: the cohort, each client's loss and time, bytes.

    Times are seconds of wall clock; bytes are those of the tensors that a
    federation over a network would send.

    Args:
        round (int): The round, from 0.
        cohort (list[int]): Its clients.
        broadcast (Broadcast): What each of them gets.
        name_of (Callable[[int], str]): What a client is called. Defaults to
            its number.
        counts_bytes (bool): Whether anything would be sent: where all
            images are in one place, nothing is. Defaults to True.
        num_clients (int): Clients of the federation. Defaults to 1.
        private (bool): Whether clients are protected, so that nothing is
            written of who took part and what they reported. Defaults to
            False.
    """

    def __init__(self, round: int, cohort: list[int], broadcast: Broadcast, name_of: Callable[[int], str] = str,
                 counts_bytes: bool = True, num_clients: int = 1, private: bool = False) -> None:
        self.round = round
        self.cohort = cohort
        self.name_of = name_of
        self.counts_bytes = counts_bytes
        self.num_clients = num_clients
        self.private = private
        #: What may be published of a private round.
        self.privacy: PrivacySpent | None = None
        self.bytes_down = len(cohort) * broadcast.num_bytes * counts_bytes
        self.bytes_up = 0
        self.clients: list[dict] = []
        self.processors: dict[str, float] = {}
        self._start = self._client_start = time.perf_counter()

    def add(self, update: ClientUpdate | ClientFailure) -> None:
        """Note what came back; a client's time is that since the one before, unless the update says."""
        now = time.perf_counter()
        seconds, self._client_start = round(now - self._client_start, 4), now
        if isinstance(update, ClientFailure):
            self.clients.append(dict(client=update.client, name=self.name_of(update.client), time=seconds, used=False,
                                     reason=update.reason))
            return
        if update.seconds is not None:
            seconds = round(update.seconds, 4)
        self.bytes_up += update.num_bytes * self.counts_bytes
        self.clients.append(
            dict(client=update.client, name=self.name_of(update.client), images=update.num_images,
                 steps=update.num_steps, time=seconds, used=update.is_finite, **update.metrics))

    def note_processors(self, metrics: dict[str, float]) -> None:
        """Note the figures of the update processors, means over the clients of this process."""
        self.processors = metrics

    def all_reduce(self) -> None:
        """Collect what the processes of a client-parallel run have logged."""
        parts = all_gather_object((self.clients, self.bytes_up, self.processors))
        self.bytes_up = sum(bytes_up for _, bytes_up, _ in parts)
        entries = {entry['client']: entry for clients, _, _ in parts for entry in clients}
        names = dict.fromkeys(name for _, _, figures in parts for name in figures)
        number = {name: [(len(clients), figures[name]) for clients, _, figures in parts if clients and name in figures]
                  for name in names}
        self.processors = {name: sum(n * value for n, value in found) / sum(n for n, _ in found)
                           for name, found in number.items() if found}
        self.clients = [entries[client] for client in self.cohort if client in entries]

    @property
    def used(self) -> list[dict]:
        """The clients whose update went into the global model."""
        return [client for client in self.clients if client['used']]

    @property
    def images(self) -> int:
        return sum(client['images'] for client in self.used)

    def scalars(self) -> dict[str, float]:
        """Means over the clients, weighted by images, for MMEngine's log."""
        if not self.used or self.private:
            return {}
        names = [name for name in self.used[0] if name not in ('client', 'name', 'images', 'steps', 'time', 'used')]
        return {
            name: sum(client['images'] * client[name] for client in self.used) / self.images
            for name in names if all(name in client for client in self.used)
        }

    def flat(self) -> dict[str, float]:
        """The round's and each client's figures, for MMEngine's visualizer (TensorBoard, …)."""
        if self.private:
            return {} if self.privacy is None else {
                'privacy/epsilon': self.privacy.epsilon, 'privacy/clip': self.privacy.clip}
        figures: dict[str, float] = {
            'round/images': self.images, 'round/bytes_down': self.bytes_down, 'round/bytes_up': self.bytes_up}
        figures.update({f'processors/{name}': value for name, value in self.processors.items()})
        for figure in ('loss', 'time'):
            values = {client['name']: client[figure] for client in self.clients if figure in client}
            if values and self.num_clients > MOST_CURVES:
                figures.update({f'clients/{figure}_{word}': float(summary(list(values.values())))
                                for word, summary in (('min', np.min), ('mean', np.mean), ('max', np.max))})
            else:  # a slash would make groups of its own
                figures.update({f'client/{name.replace("/", "_")}/{figure}': value for name, value in values.items()})
        return figures

    def sentence(self) -> str:
        """The console's line."""
        if self.private:
            spent = '' if self.privacy is None else f'{self.privacy.sentence()}; '
            return f'Round {self.round + 1}: {spent}who took part and what they reported are not logged'
        clients = ', '.join(f'{client["name"]} ({client.get("loss", math.nan):.3f}, {client["time"]:.1f} s)'
                            for client in self.clients)
        return (f'Round {self.round + 1}: clients (loss, time) {clients}; {self.images} images, '
                f'{self.bytes_down / 1e6:.1f} MB down, {self.bytes_up / 1e6:.1f} MB up')

    def write(self, path: Path, eta: float | None) -> None:
        """Append the round as one line of JSON."""
        line = dict(round=self.round + 1, cohort=self.cohort, time=round(time.perf_counter() - self._start, 4),
                    eta=eta, images=self.images, bytes_down=self.bytes_down, bytes_up=self.bytes_up,
                    **(dict(processors=self.processors) if self.processors else {}),
                    clients=[{key: None if isinstance(value, float) and not math.isfinite(value) else value
                               for key, value in client.items()}
                             for client in self.clients])
        if self.private:  # zeros where readers expect numbers
            line.update(cohort=[], images=0, bytes_down=0, bytes_up=0, clients=[],
                        privacy=None if self.privacy is None else self.privacy.line())
            line.pop('processors', None)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('a', encoding='utf-8') as file:
            file.write(json.dumps(line) + '\n')
