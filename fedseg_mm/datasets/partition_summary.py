"""What a partition means for its clients and classes, in numbers, a table and warnings."""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from prettytable import PrettyTable

from fedseg_mm.datasets.partition import Partition


@dataclass(frozen=True)
class PartitionSummary:
    """A partition and what its clients hold.

    Args:
        partition (Partition): Who holds and annotates what.
        image_names (list[str]): Paths of the data set's images.
        class_names (tuple[str]): Names of its classes.
        class_counts (np.ndarray): Pixels of each class in each image, int64
            (images, classes).
        unannotated_counts (np.ndarray): Pixels that the image's file calls
            unannotated, int64 (images,).
        void_counts (np.ndarray, optional): Pixels of no class, int64
            (images,). Defaults to None: not known.
        channels (np.ndarray, optional): Channels of each image, 0 where they
            are not known. Defaults to None.
    """
    partition: Partition
    image_names: list[str]
    class_names: tuple[str, ...]
    class_counts: np.ndarray
    unannotated_counts: np.ndarray
    void_counts: np.ndarray | None = None
    channels: np.ndarray | None = None

    @cached_property
    def num_images(self) -> np.ndarray:
        """Images of each client, int (clients,)."""
        return np.array([len(shard.indices) for shard in self.partition.clients])

    @cached_property
    def annotated(self) -> np.ndarray:
        """Whether a client annotates a class, bool (clients, classes)."""
        clients = self.partition.clients
        annotated = np.zeros((len(clients), len(self.class_names)), bool)
        client = np.repeat(np.arange(len(clients)), [len(shard.classes) for shard in clients])
        annotated[client, _joined(shard.classes for shard in clients)] = True
        return annotated

    @cached_property
    def annotated_classes(self) -> list[str]:
        """Names of the classes that a client annotates."""
        return [self.class_names[cls] for cls in np.flatnonzero(self.annotated.any(axis=0))]

    @cached_property
    def _held(self) -> np.ndarray:
        """Images of all clients, one client after the other."""
        return _joined(shard.indices for shard in self.partition.clients)

    @cached_property
    def _pixels(self) -> np.ndarray:
        """Pixels of each class at each client, int64 (clients, classes)."""
        return self.per_client(self.class_counts)

    def per_client(self, per_image: np.ndarray) -> np.ndarray:
        """Sums over each client's images.

        Args:
            per_image (np.ndarray): Shape (images, ...).

        Returns:
            np.ndarray: Shape (clients, ...).
        """
        sums = np.zeros((len(self.partition), *per_image.shape[1:]), per_image[:0].sum(0).dtype)
        holds = self.num_images > 0  # reduceat would give a client without images another one's
        starts = (self.num_images.cumsum() - self.num_images)[holds]
        if len(starts):
            sums[holds] = np.add.reduceat(per_image[self._held], starts, dtype=sums.dtype)
        return sums

    @cached_property
    def unannotated_share(self) -> np.ndarray:
        """Share of a client's pixels, void apart, that it does not annotate, float (clients,)."""
        annotated = (self._pixels * self.annotated).sum(1)
        total = self._pixels.sum(1) + self.per_client(self.unannotated_counts)
        return 1 - annotated / np.maximum(total, 1)

    def client_table(self, most: int = 40) -> str:
        """A line per client, for people; the first ``most``."""
        table = PrettyTable(['client', 'images', 'annotates', 'unannotated'])
        table.align = 'r'
        table.align['annotates'] = 'l'
        names = [shard.name or str(client) for client, shard in enumerate(self.partition.clients)]
        rows = list(zip(names, self.num_images, self.partition.clients, self.unannotated_share))
        for name, images, shard, share in rows[:most]:
            table.add_row([name, images, self._list_classes(shard.classes), f'{share:.1%}'])
        left = f'\n… and {len(rows) - most} more clients' if len(rows) > most else ''
        return f'{table}{left}'

    def class_table(self) -> str:
        """A line per class, for people."""
        table = PrettyTable(['class', 'images that show it', 'clients that annotate it', 'its pixels annotated'])
        table.align = 'r'
        share = (self._pixels * self.annotated).sum(0) / np.maximum(self.class_counts.sum(0), 1)
        for row in zip(self.class_names, (self.class_counts > 0).sum(0), self.annotated.sum(0), share):
            table.add_row([*row[:3], f'{row[3]:.1%}'])
        return str(table)

    def _list_classes(self, classes: Sequence[int]) -> str:
        if len(classes) == len(self.class_names):
            return f'all {len(classes)}'
        more = f' and {len(classes) - 5} more' if len(classes) > 5 else ''
        return ', '.join(self.class_names[cls] for cls in classes[:5]) + more

    def warnings(self, batch_size: int) -> list[str]:
        """What will hurt the training, one sentence each.

        Args:
            batch_size (int): Images per batch.
        """
        sentences = []
        sizes, annotated = self.num_images, self.annotated
        shown = (self.class_counts > 0).any(0)
        if nowhere := np.flatnonzero(shown & ~annotated.any(0)).tolist():
            names = ', '.join(self.class_names[cls] for cls in nowhere)
            sentences.append(f'No client annotates {names}: the model cannot learn {_them(nowhere)}.')
        if len(absent := np.flatnonzero(~shown).tolist()):
            names = ', '.join(self.class_names[cls] for cls in absent)
            sentences.append(f'No image shows {names}: the model cannot learn {_them(absent)}.')
        if left := len(self.class_counts) - int(sizes.sum()):
            nobodys = np.ones(len(self.class_counts), bool)
            nobodys[self._held] = False
            listed = 'manifest' in self.partition.made_by  # what it leaves out was not looked at
            blank = 0 if listed else int((~self.class_counts[nobodys].any(1)).sum())
            number = '' if blank == left else f'{blank} of them '
            of_these = f', {number}because {"it shows" if blank == 1 else "they show"} no class' if blank else ''
            belong = '1 image belongs' if left == 1 else f'{left} images belong'
            sentences.append(f'{belong} to no client{of_these}.')
        if (sizes == 1).any():
            sentences.append(f'{_clients((sizes == 1).sum())} one image: seen twice per local epoch, with two '
                             'augmentations, because batch normalisation cannot train on one image.')
        if (few := (sizes > 1) & (sizes < batch_size)).any():
            sentences.append(f'{_clients(few.sum())} fewer images than a batch of {batch_size}: one smaller batch is '
                             'trained there per local epoch.')
        blind = ~((self._pixels > 0) & annotated).any(1)
        if blind.any():
            sentences.append(f'No image of client {self._list_clients(blind)} shows a class that the client annotates.')
        marks = np.array([shard.unannotated is not None for shard in self.partition.clients])
        unmarked = marks & (self.per_client(self.unannotated_counts) == 0) & ~annotated.all(1) & (sizes > 0)
        if unmarked.any():
            sentences.append(f'No mask of client {self._list_clients(unmarked)} contains the label that the manifest '
                             'calls unannotated: give the value that it has after reduce_zero_label and the like.')
        return sentences

    def _list_clients(self, chosen: np.ndarray) -> str:
        names = [self.partition.clients[k].name or str(k) for k in np.flatnonzero(chosen)[:10]]
        return ', '.join(names) + (', …' if chosen.sum() > 10 else '')


def _joined(numbers: Iterable[Sequence[int]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(numbers), np.int64)


def number_range(numbers: Iterable[int]) -> str:
    """``5`` or ``5 to 8``."""
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f'{least} to {most}'


def _them(classes: Sequence[int]) -> str:
    return 'it' if len(classes) == 1 else 'them'


def _clients(number: int) -> str:
    return f'{number} client{" holds" if number == 1 else "s hold"}'
