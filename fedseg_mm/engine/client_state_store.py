"""What clients keep from round to round, on disk."""
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fedseg_mm.errors import FedSegError
from fedseg_mm.files import atomic_write


class ClientStateStore:
    """One file per client and round, written atomically; nothing is held in memory.

    Of a client there are at most two: its last one, and the one that the last
    checkpoint saw. Whoever resumes from that checkpoint finds the states of
    its round, bit for bit.

    Args:
        folder (str or Path): Where the files go.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        #: Rounds that the last checkpoint has behind it.
        self.checkpointed = 0

    def _rounds(self, client: int) -> list[int]:
        return sorted(int(path.stem.split('_')[1]) for path in (self.folder / str(client)).glob('round_*.pth'))

    def _files(self) -> Iterator[tuple[int, os.DirEntry]]:
        """Client and file of all that was saved, in one look at each folder: there may be many clients."""
        if not self.folder.is_dir():
            return
        with os.scandir(self.folder) as clients:
            for client in clients:
                if client.name.isdecimal() and client.is_dir():
                    with os.scandir(client) as files:
                        found = [file for file in files if file.name.startswith('round_')]
                    yield from ((int(client.name), file) for file in found)

    def _path(self, client: int, rounds: int) -> Path:
        return self.folder / str(client) / f'round_{rounds}.pth'

    def load(self, client: int, device: torch.device | str = 'cpu') -> dict[str, dict[str, Tensor]]:
        """The client's last state; empty if it has none.

        Raises:
            FedSegError: The file cannot be read; names it.
        """
        rounds = self._rounds(client)
        if not rounds:
            return {}
        path = self._path(client, rounds[-1])
        try:
            return torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # the unpickler may raise anything on a damaged file
            raise FedSegError(f'the state of client {client} in {path} cannot be read: restore the file, or train '
                              'anew without --resume') from error

    def save(self, client: int, rounds: int, state: dict[str, dict[str, Tensor]]) -> None:
        """Keep a client's state.

        Args:
            client (int): The client's id.
            rounds (int): Rounds that are finished with this one.
            state (dict): Groups of tensors.
        """
        with atomic_write(self._path(client, rounds)) as file:
            torch.save(state, file)
        have = self._rounds(client)
        needed = max((r for r in have if r <= self.checkpointed), default=rounds)
        for old in set(have) - {rounds, needed}:
            self._path(client, old).unlink()

    def latest(self) -> dict[int, int]:
        """Rounds behind the last state of every client that has one."""
        latest: dict[int, int] = {}
        for client, file in self._files():
            if file.name.endswith('.pth'):
                latest[client] = max(_finished(file.name), latest.get(client, 0))
        return latest

    def rewind(self, rounds: int) -> None:
        """Forget all that happened after so many rounds; 0 forgets everything."""
        self.checkpointed = rounds
        for _, file in self._files():
            killed = file.name.endswith('.tmp')  # a save that was not finished
            if killed or (file.name.endswith('.pth') and _finished(file.name) > rounds):
                os.unlink(file)


def _finished(name: str) -> int:
    """Rounds that a file's name says."""
    return int(name.removesuffix('.pth').split('_')[1])
