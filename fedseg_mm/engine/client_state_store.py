"""What clients keep from round to round, on disk."""
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from fedseg_mm.checkpoints import check_unpacked_size
from fedseg_mm.errors import FedSegError
from fedseg_mm.files import atomic_write


class ClientStateStore:
    """One file per client and round, written atomically; nothing is held in memory.

    Kept are a client's last state, the one before while its round is not
    finished, and those that belong to the last checkpoints: a run resumed from
    one of these checkpoints finds the states of its round, bit for bit.

    Args:
        folder (str or Path): Where the files go.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        #: Rounds that the checkpoints whose states are kept have behind them.
        self.checkpointed: tuple[int, ...] = ()
        self._saved: set[int] = set()

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

    def load(self, client: int, device: torch.device | str = 'cpu',
             rounds: int | None = None) -> dict[str, dict[str, Tensor]]:
        """The client's last state, or that of just so many rounds; empty if it has none.

        Raises:
            FedSegError: The file cannot be read; names it.
        """
        if rounds is None:
            found = self._rounds(client)
            if not found:
                return {}
            rounds = found[-1]
        path = self._path(client, rounds)
        try:
            check_unpacked_size(path)
            state = torch.load(path, map_location=device, weights_only=True)
            if not all(isinstance(tensor, Tensor) for group in state.values() for tensor in group.values()):
                raise TypeError('it holds something else than tensors')
            return state
        except Exception as error:  # the unpickler may raise anything on a damaged file
            raise FedSegError(f'the state of client {client} in {path} cannot be read: restore the file, or start '
                              'again without --resume') from error

    def save(self, client: int, rounds: int, state: dict[str, dict[str, Tensor]]) -> None:
        """Keep a client's state.

        Args:
            client (int): The client's id.
            rounds (int): Rounds that are finished with this one.
            state (dict): Groups of tensors.
        """
        content = io.BytesIO()  # torch's own writer does not say why a file could not be written
        torch.save(state, content)
        with atomic_write(self._path(client, rounds)) as file:
            file.write_bytes(content.getbuffer())
        self._saved.add(client)

    def settle(self) -> None:
        """The round is finished: remove what its clients no longer need."""
        for client in self._saved:
            have = self._rounds(client)
            needed = {max((r for r in have if r <= rounds), default=have[-1]) for rounds in self.checkpointed}
            for old in set(have[:-1]) - needed:
                self._path(client, old).unlink()
        self._saved.clear()

    def latest(self, rounds: int | None = None) -> dict[int, int]:
        """Rounds behind the last state of every client that has one.

        Args:
            rounds (int, optional): Rounds after which nothing counts.
                Defaults to None: all count.
        """
        latest: dict[int, int] = {}
        for client, file in self._files():
            if file.name.endswith('.pth') and (rounds is None or _finished(file.name) <= rounds):
                latest[client] = max(_finished(file.name), latest.get(client, 0))
        return latest

    def has(self, client: int, rounds: int) -> bool:
        """Whether there is a client's state of just so many rounds."""
        return self._path(client, rounds).is_file()

    def take(self, other: 'ClientStateStore', latest: Mapping[int, int]) -> None:
        """Have the states of another folder here too, which stays as it is.

        Args:
            other (ClientStateStore): The other folder.
            latest (Mapping[int, int]): Which state of which client.
        """
        for client, rounds in latest.items():
            with atomic_write(self._path(client, rounds)) as file:
                try:
                    os.link(other._path(client, rounds), file)
                except OSError:  # another disk, or one without links
                    shutil.copyfile(other._path(client, rounds), file)

    def remove(self) -> None:
        """Remove all states, and the folders that are then empty."""
        self.rewind(0)
        for folder in (*self.folder.glob('*/'), self.folder):
            with suppress(OSError):  # others' files are in it
                folder.rmdir()

    def rewind(self, rounds: int) -> None:
        """Forget all that happened after so many rounds; 0 forgets everything."""
        self.checkpointed = (rounds, )
        for _, file in self._files():
            killed = file.name.endswith('.tmp')  # a save that was not finished
            if killed or (file.name.endswith('.pth') and _finished(file.name) > rounds):
                os.unlink(file)


def _finished(name: str) -> int:
    """Rounds that a file's name says."""
    return int(name.removesuffix('.pth').split('_')[1])
