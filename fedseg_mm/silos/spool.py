"""Messages on disk, by their content: they arrive in pieces, go on after an interruption, and take no memory."""
import hashlib
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from fedseg_mm.errors import FedSegError

#: Bytes of the disk that messages leave free.
SPARE = 256 << 20
_DIGEST = re.compile(r'[0-9a-f]{64}')


def digest_of(content: bytes) -> str:
    """What a message is called: the SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()


class Spool:
    """A folder of messages, whole and unfinished.

    Args:
        folder (Path): Where they lie; what an earlier process has left there
            is used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _path(self, digest: str) -> Path:
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise FedSegError(f'{digest!r:.80} is not a SHA-256 of a message')
        return self.folder / digest

    def has(self, digest: str) -> bool:
        """Whether a message is there as a whole."""
        return self._path(digest).is_file()

    def add(self, content: bytes) -> str:
        """Keep a message; returns its digest."""
        digest = digest_of(content)
        if not self.has(digest):
            part = self._part(digest)
            part.write_bytes(content)
            part.replace(self._path(digest))
        return digest

    def _part(self, digest: str) -> Path:
        return self._path(digest).with_suffix('.part')

    def arrived(self, digest: str, total: int) -> int:
        """Bytes of a message that are there so far."""
        if self.has(digest):
            return total
        part = self._part(digest)
        have = part.stat().st_size if part.is_file() else 0
        if have < total or not have:
            return have
        # the process ended before it could, or the machine before all was on the disk
        return total if self._complete(digest) else 0

    def _complete(self, digest: str) -> bool:
        """Make a message of all its pieces; False, and they are gone, if they are something else."""
        part = self._part(digest)
        found = hashlib.sha256()
        with part.open('rb') as file:
            while piece := file.read(1 << 20):
                found.update(piece)
        if found.hexdigest() != digest:
            part.unlink()
            return False
        part.replace(self._path(digest))
        return True

    def put(self, digest: str, offset: int, piece: bytes, total: int) -> int:
        """Take a piece of a message; one that is there already changes nothing.

        Returns:
            int: Bytes that are there so far, where the next piece begins.

        Raises:
            FedSegError: All pieces are there, and are not the message, or it
                would fill the disk.
        """
        have = self.arrived(digest, total)
        if have != offset or self.has(digest):
            return have
        if shutil.disk_usage(self.folder).free < total - have + SPARE:
            raise FedSegError(f'a message of {total} bytes does not fit on the disk of {self.folder}, of which '
                              f'{SPARE >> 20} MiB are to stay free: make room there')
        with self._part(digest).open('ab') as file:
            file.write(piece)
        if have + len(piece) >= total and not self._complete(digest):
            raise FedSegError('a message was damaged on its way: is the memory or the disk of a machine faulty?')
        return have + len(piece)

    def read(self, digest: str, offset: int = 0, length: int = -1) -> bytes:
        """The message, or a piece of it."""
        with self._path(digest).open('rb') as file:
            file.seek(offset)
            return file.read(length)

    def size(self, digest: str) -> int:
        """Bytes of a whole message."""
        return self._path(digest).stat().st_size

    def keep(self, digests: Collection[str]) -> None:
        """Remove all other messages."""
        for file in self.folder.iterdir():
            if file.stem not in digests:
                file.unlink(missing_ok=True)
