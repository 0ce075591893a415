"""Clients whose classes are more or less mixed."""
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np

from fedseg_mm.datasets.partitioners.class_partitioner import assign_images
from fedseg_mm.datasets.partitioners.partitioner import Partitioner
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import PARTITIONERS
from fedseg_mm.validation import check_number


@PARTITIONERS.register_module()
class DirichletPartitioner(Partitioner):
    r"""Split each class's images in proportions drawn from a Dirichlet distribution.

    Every image counts for one class that it shows, chosen as in
    :class:`ClassPartitioner`; an image of class c goes to client k with the
    probability :math:`p_{ck}`, :math:`p_c \sim Dir_K(\alpha)` (Yurochkin et
    al., ICML 2019). Small :math:`\alpha`: a client holds few classes; large
    :math:`\alpha`: the clients are alike.

    Args:
        num_clients (int): Number of clients K.
        alpha (float): Concentration :math:`\alpha`. Defaults to 0.5.
        min_images (int): Images that every client has at least; one with
            fewer gets some from the client with most. Defaults to 1.
        classes_per_client (int, optional): Annotated classes per client.
            Defaults to None: all.
        seed (int): The same seed gives the same partition on every machine.
            Defaults to 0.

    Raises:
        FedSegError: ``alpha`` or a number is not positive, or there are too
            few images.
    """

    def __init__(self, num_clients: int, alpha: float = 0.5, min_images: int = 1,
                 classes_per_client: int | None = None, seed: int = 0) -> None:
        super().__init__(num_clients, classes_per_client, seed)
        self.alpha = float(check_number('`alpha` of DirichletPartitioner', alpha, above=0))
        self.min_images = self._integer('min_images', min_images, 1)

    def split(self, usable, presence, image_names, rng) -> list[tuple[str, np.ndarray]]:
        if self.num_clients * self.min_images > len(usable):
            raise FedSegError(f'num_clients={self.num_clients} with min_images={self.min_images} needs '
                              f'{self.num_clients * self.min_images} images that show a class, but there are '
                              f'{len(usable)}: lower one of them')
        num_classes = presence.shape[1]
        shares = rng.dirichlet(np.full(self.num_clients, self.alpha), num_classes)
        only = np.arange(self.num_clients) == rng.randint(self.num_clients, size=num_classes)[:, None]
        shares = np.where(np.isnan(shares), only, shares)  # of a tiny alpha: all of it underflows
        assigned = assign_images(presence, rng)[usable]
        up_to, drawn = shares.cumsum(1)[:, :-1], rng.rand(len(usable))
        client = np.empty(len(usable), np.int64)
        for cls in range(num_classes):
            own = assigned == cls
            client[own] = np.searchsorted(up_to[cls], drawn[own])
        self._feed_starving(client, rng)
        by_client = usable[np.argsort(client, kind='stable')]
        ends = np.bincount(client, minlength=self.num_clients).cumsum()
        return [('', indices) for indices in np.split(by_client, ends[:-1])]

    def _feed_starving(self, client: np.ndarray, rng: np.random.RandomState) -> None:
        """Move images, one by one, from the client with most to the one with fewest, in place.

        Of equals, the first one is meant. Who is fed never has more than
        ``min_images`` and so never gives; as long as someone starves, another
        one has more than that.
        """
        size = np.bincount(client, minlength=self.num_clients)
        starving = [(int(size[k]), int(k)) for k in np.flatnonzero(size < self.min_images)]
        giving = [(-int(size[k]), int(k)) for k in np.flatnonzero(size > self.min_images)]
        heapify(starving)
        heapify(giving)
        by_client, ends = np.argsort(client, kind='stable'), size.cumsum()
        left: dict[int, list[list[int]]] = {}
        while starving:
            (has, poor), (most, rich) = heappop(starving), giving[0]
            if rich not in left:
                left[rich] = _in_blocks(by_client[ends[rich] - size[rich]:ends[rich]])
            client[_take(left[rich], rng.choice(-most))] = poor
            heapreplace(giving, (most + 1, rich))
            if has + 1 < self.min_images:
                heappush(starving, (has + 1, poor))


def _in_blocks(images: np.ndarray, size: int = 1024) -> list[list[int]]:
    """Short lists, from which an image is taken quickly."""
    return [images[start:start + size].tolist() for start in range(0, len(images), size)]


def _take(blocks: list[list[int]], place: int) -> int:
    """Take out what is at a place in all blocks."""
    for block in blocks:
        if place < len(block):
            return block.pop(place)
        place -= len(block)
    raise IndexError(place)
