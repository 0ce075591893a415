"""Clients that are alike."""
import numpy as np

from fedseg_mm.datasets.partitioners.partitioner import Partitioner
from fedseg_mm.registry import PARTITIONERS


@PARTITIONERS.register_module()
class IIDPartitioner(Partitioner):
    """Deal the images out at random, evenly.

    Args:
        num_clients (int): Number of clients K.
        classes_per_client (int, optional): Annotated classes per client.
            Defaults to None: all.
        seed (int): The same seed gives the same partition on every machine.
            Defaults to 0.
    """

    def split(self, usable, presence, image_names, rng) -> list[tuple[str, np.ndarray]]:
        return [('', part) for part in np.array_split(rng.permutation(usable), self.num_clients)]
