"""Who holds which images and which classes they annotate."""
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from fedseg_mm.errors import FedSegError, shown
from fedseg_mm.files import atomic_write
from fedseg_mm.validation import is_name

FORMAT = 'fedseg_mm partition 2'


@dataclass(frozen=True)
class ClientShard:
    """What one client holds.

    Args:
        indices (tuple[int]): Its images, as indices into the data set.
        classes (tuple[int]): Its annotated classes, ascending.
        name (str): What people call it. Defaults to ''.
        unannotated (int, optional): The label value (after MMSegmentation's
            loading) by which its label files say "unannotated". Defaults to
            None: they have none.
    """
    indices: tuple[int, ...]
    classes: tuple[int, ...]
    name: str = ''
    unannotated: int | None = None

    def images(self) -> list[tuple[int, tuple[int, ...], int | None]]:
        """Each image with its annotated classes and its value for "unannotated"."""
        return [(index, self.classes, self.unannotated) for index in self.indices]


@dataclass(frozen=True)
class PooledShard(ClientShard):
    """All clients' images in one place, each annotated as its client did.

    Args:
        parts (tuple[ClientShard]): The clients.
    """
    parts: tuple[ClientShard, ...] = ()

    def images(self) -> list[tuple[int, tuple[int, ...], int | None]]:
        return sorted((image for part in self.parts for image in part.images()), key=lambda image: image[0])


@dataclass(frozen=True)
class Partition:
    """All clients of a federation; the client's id is its place in ``clients``.

    Args:
        clients (tuple[ClientShard]): One shard per client.
        num_images (int): Images of the data set.
        num_classes (int): Classes of the data set.
        made_by (dict): How it was made, for the reader of a manifest.

    Raises:
        FedSegError: A client holds an image twice, one of another client, or
            one that is not there; annotates a class that is not there; or has
        a name that is not a string of one line, or another client's.
    """
    clients: tuple[ClientShard, ...]
    num_images: int
    num_classes: int
    made_by: dict = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        self._check('image', [shard.indices for shard in self.clients], self.num_images, shared=False)
        self._check('class', [shard.classes for shard in self.clients], self.num_classes, shared=True)
        self._check_names()

    def _check_names(self) -> None:
        names: set[str] = set()
        for client, shard in enumerate(self.clients):
            if not isinstance(shard.name, str) or not is_name(shard.name):
                raise FedSegError(f'the name of client {client} must be a string of one line, but is '
                                  f'{shown(repr(shard.name))}')
            if shard.name in names:
                raise FedSegError(f'two clients are named {shard.name}: give each a name of its own')
            if shard.name:
                names.add(shard.name)

    def _check(self, what: str, held: Sequence[Sequence[int]], number: int, shared: bool) -> None:
        """Refuse what is not there, or is held twice: by one client, or unless shared by two."""
        sizes = np.fromiter(map(len, held), np.int64, len(held))
        found = np.fromiter(chain.from_iterable(held), np.int64, int(sizes.sum()))
        client = np.repeat(np.arange(len(held)), sizes)
        if (wrong := (found < 0) | (found >= number)).any():
            first = wrong.argmax()
            raise FedSegError(f'{self._who(client[first])} has the {what} {found[first]}, but there are {number}: the '
                              f'partition counts them from 0 to {number - 1}')
        order = np.lexsort((client, found)) if shared else np.argsort(found, kind='stable')
        same = found[order][1:] == found[order][:-1]
        if shared:
            same &= client[order][1:] == client[order][:-1]
        if same.any():
            one, other = order[same.argmax()], order[same.argmax() + 1]
            both = f' and {self._who(client[other])}' if client[one] != client[other] else ''
            raise FedSegError(f'{self._who(client[one])}{both} {"both hold" if both else "has"} the {what} {found[one]}'
                              f'{"" if both else " twice"}: every {what} may be listed only once')

    def _who(self, client: int) -> str:
        return f'client {self.clients[client].name or client}'

    def __len__(self) -> int:
        return len(self.clients)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over clients, images and classes; equal partitions only share it."""
        digest = hashlib.sha256(f'fedseg_mm partition 1 {self.num_images} {self.num_classes}'.encode())
        for shard in self.clients:
            digest.update(np.array([len(shard.classes), *shard.classes], '<i8').tobytes())
            digest.update(np.array([len(shard.indices), *shard.indices], '<i8').tobytes())
            if shard.unannotated is not None:
                digest.update(f'unannotated {shard.unannotated}'.encode())
        return digest.hexdigest()

    def save(self, path: str | Path, image_names: Sequence[str], class_names: Sequence[str]) -> None:
        """Write the manifest: readable JSON, one line per client, atomically.

        :class:`ManifestPartitioner` reads it, here or on another machine:
        images and classes are written by name.

        Args:
            path (str or Path): The file.
            image_names (Sequence[str]): The data set's images by index, as
                paths below its folder.
            class_names (Sequence[str]): The data set's classes by index.
        """
        lines = []
        for client, shard in enumerate(self.clients):
            line = dict(client=shard.name or client, classes=[class_names[cls] for cls in shard.classes])
            if shard.unannotated is not None:
                line['unannotated'] = shard.unannotated
            line['images'] = [image_names[index] for index in shard.indices]
            lines.append(json.dumps(line, ensure_ascii=False))
        clients = ',\n  '.join(lines)
        head = json.dumps(dict(
            format=FORMAT, hash=self.hash, made_by=self.made_by, num_images=self.num_images,
            class_names=list(class_names)), ensure_ascii=False)
        with atomic_write(path) as file:
            file.write_text(f'{head[:-1]},\n "clients": [\n  {clients}\n ]}}\n', encoding='utf-8')
