"""Clients whose classes are more or less mixed."""
import numpy as np

from fedseg_mm.datasets.partitioners.class_partitioner import assign_images
from fedseg_mm.datasets.partitioners.partitioner import Partitioner
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import PARTITIONERS


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
        min_images (int): Images that every client has at least; who has fewer
            is given some of the client with most. Defaults to 1.
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
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < float('inf'):
            raise FedSegError(f'`alpha` of DirichletPartitioner must be a number above 0, but is {alpha!r}')
        self.alpha = float(alpha)
        self.min_images = self._integer('min_images', min_images, 1)

    def split(self, usable, presence, image_names, rng) -> list[tuple[str, np.ndarray]]:
        if self.num_clients * self.min_images > len(usable):
            raise FedSegError(f'num_clients={self.num_clients} with min_images={self.min_images} needs '
                              f'{self.num_clients * self.min_images} images that show a class, but there are '
                              f'{len(usable)}: lower one of them')
        num_classes = presence.shape[1]
        shares = rng.dirichlet(np.full(self.num_clients, self.alpha), num_classes)
        only = np.eye(self.num_clients)[rng.randint(self.num_clients, size=num_classes)]
        shares = np.where(np.isnan(shares), only, shares)  # of a tiny alpha: all of it underflows
        assigned = assign_images(presence, rng)[usable]
        up_to = shares.cumsum(1)[:, :-1]
        client = (up_to[assigned] < rng.rand(len(usable), 1)).sum(1)
        self._feed_starving(client, rng)
        return [('', usable[client == k]) for k in range(self.num_clients)]

    def _feed_starving(self, client: np.ndarray, rng: np.random.RandomState) -> None:
        """Move images, one by one, from the client with most to the one with fewest, in place."""
        size = np.bincount(client, minlength=self.num_clients)
        while size.min() < self.min_images:
            poor, rich = size.argmin(), size.argmax()
            client[rng.choice(np.flatnonzero(client == rich))] = poor
            size[poor] += 1
            size[rich] -= 1
