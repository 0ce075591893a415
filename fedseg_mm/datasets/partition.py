"""Who holds which images and which classes they annotate."""
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from fedseg_mm.errors import FedSegError

FORMAT = 'fedseg_mm partition 1'


@dataclass(frozen=True)
class ClientShard:
    """What one client holds.

    Args:
        indices (tuple[int]): Its images, as indices into the data set.
        classes (tuple[int]): Its annotated classes, ascending.
    """
    indices: tuple[int, ...]
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Partition:
    """All clients of a federation; the client's id is its place in ``clients``.

    Args:
        clients (tuple[ClientShard]): One shard per client.
        num_images (int): Images of the data set.
        num_classes (int): Classes of the data set.
        made_by (dict): How it was made, for the reader of a manifest.
    """
    clients: tuple[ClientShard, ...]
    num_images: int
    num_classes: int
    made_by: dict = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.clients)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over clients, images and classes; equal partitions only share it."""
        digest = hashlib.sha256(f'{FORMAT} {self.num_images} {self.num_classes}'.encode())
        for shard in self.clients:
            digest.update(np.array([len(shard.classes), *shard.classes], '<i8').tobytes())
            digest.update(np.array([len(shard.indices), *shard.indices], '<i8').tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path, file_names: Sequence[str] = ()) -> None:
        """Write the manifest: readable JSON, one line per client, atomically.

        Args:
            path (str or Path): The file.
            file_names (Sequence[str]): The data set's images by index, for
                the reader.
        """
        lines = []
        for client, shard in enumerate(self.clients):
            line = dict(client=client, classes=shard.classes, images=shard.indices)
            if file_names:
                line['files'] = [file_names[index] for index in shard.indices]
            lines.append(json.dumps(line))
        clients = ',\n  '.join(lines)
        head = json.dumps(dict(
            format=FORMAT, hash=self.hash, made_by=self.made_by, num_images=self.num_images,
            num_classes=self.num_classes))
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f'{path.name}.{os.getpid()}.tmp')
        unfinished.write_text(f'{head[:-1]},\n "clients": [\n  {clients}\n ]}}\n', encoding='utf-8')
        unfinished.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> 'Partition':
        """Read a manifest that :meth:`save` wrote.

        Raises:
            FedSegError: The file is missing, no manifest, or was changed
                without its hash.
        """
        try:
            manifest = json.loads(Path(path).read_text(encoding='utf-8'))
        except FileNotFoundError:
            raise FedSegError(f'there is no partition manifest {path}') from None
        except (OSError, ValueError) as error:
            raise FedSegError(f'the partition manifest {path} cannot be read: {error}') from error
        if not isinstance(manifest, dict) or manifest.get('format') != FORMAT:
            raise FedSegError(f'{path} is not a partition manifest of the format "{FORMAT}"')
        try:
            partition = cls(
                clients=tuple(
                    ClientShard(tuple(map(int, client['images'])), tuple(map(int, client['classes'])))
                    for client in manifest['clients']),
                num_images=int(manifest['num_images']),
                num_classes=int(manifest['num_classes']),
                made_by=manifest['made_by'])
            stated = manifest['hash']
        except (KeyError, TypeError, ValueError) as error:
            raise FedSegError(f'the partition manifest {path} is incomplete: {error!r}') from error
        if partition.hash != stated:
            raise FedSegError(f'the partition manifest {path} was changed: its hash does not fit its clients')
        return partition
