"""Base of the partitioners: their interface, and what they share."""
from collections.abc import Sequence

import numpy as np

from fedseg_mm.datasets.partition import ClientShard, Partition
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import constructor_parameters

UNASSIGNED = -1


class Partitioner:
    """Splits a data set's images among clients; the base of all partitioners.

    A partitioner of your own overrides :meth:`split`, or :meth:`make_clients`
    where who annotates what follows from its own rule.

    Args:
        num_clients (int): Number of clients K.
        classes_per_client (int, optional): Annotated classes per client, drawn
            from those that the client's images show (fewer, where they show
            fewer), the ones that fewest clients annotate so far first.
            Defaults to None: every client annotates all classes.
        seed (int): The same seed gives the same partition on every machine.
            Defaults to 0.

    Raises:
        FedSegError: A number is not a positive integer.
    """

    def __init__(self, num_clients: int, classes_per_client: int | None = None, seed: int = 0) -> None:
        self.num_clients = self._integer('num_clients', num_clients, 1)
        self.classes_per_client = classes_per_client
        if classes_per_client is not None:
            self.classes_per_client = self._integer('classes_per_client', classes_per_client, 1)
        self.seed = self._integer('seed', seed, 0)
        if self.seed >= 2**32:
            raise FedSegError(f'`seed` of {type(self).__name__} must be below {2**32}, but is {seed}')

    def _integer(self, name: str, value, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise FedSegError(f'`{name}` of {type(self).__name__} must be an integer of at least {least}, but is '
                              f'{value!r}')
        return int(value)

    def unannotated_values(self, image_names: Sequence[str], class_names: Sequence[str]) -> np.ndarray | None:
        """What the label files use for unannotated pixels; asked before the labels are looked at.

        Returns:
            np.ndarray, optional: Per image the label value that means
            "unannotated", -1 for none, -2 for an image of no client, int
            (images,). None, the default, is -1 for all.
        """
        return None

    def partition(self, class_counts: np.ndarray, image_names: Sequence[str] = (),
                  class_names: Sequence[str] = ()) -> Partition:
        """Split the images among the clients.

        Args:
            class_counts (np.ndarray): Pixels of each class in each image,
                integers of shape (images, classes).
            image_names (Sequence[str]): Paths of the images, below the data
                set's folder.
            class_names (Sequence[str]): Names of the classes.

        Returns:
            Partition: No image is held by two clients.

        Raises:
            FedSegError: The data set cannot be split this way; says why.
        """
        class_counts = np.asarray(class_counts)
        if class_counts.ndim != 2 or not np.issubdtype(class_counts.dtype, np.integer):
            raise FedSegError(f'class_counts must be an integer array (images, classes), but has shape '
                              f'{class_counts.shape} and type {class_counts.dtype}')
        num_images, num_classes = class_counts.shape
        if self.classes_per_client is not None and self.classes_per_client > num_classes:
            raise FedSegError(f'classes_per_client={self.classes_per_client} is more than the {num_classes} classes: '
                              'lower classes_per_client')
        # RandomState, because numpy keeps its streams the same in all versions
        rng = np.random.RandomState(self.seed)
        clients = self.make_clients(class_counts > 0, image_names, class_names, rng)
        made_by = {name: getattr(self, name) for name in constructor_parameters(type(self)) if hasattr(self, name)}
        return Partition(clients, num_images, num_classes, dict(type=type(self).__name__, **made_by))

    def make_clients(self, presence: np.ndarray, image_names: Sequence[str], class_names: Sequence[str],
                     rng: np.random.RandomState) -> tuple[ClientShard, ...]:
        """Who holds and annotates what.

        Args:
            presence (np.ndarray): Whether an image shows a class, bool
                (images, classes).
            image_names (Sequence[str]): Paths of the images.
            class_names (Sequence[str]): Names of the classes.
            rng (np.random.RandomState): For every random choice.
        """
        usable = np.flatnonzero(presence.any(1))
        self._check_enough(usable)
        parts = self.split(usable, presence, image_names, rng)
        annotators = np.zeros(presence.shape[1], np.int64)
        shards = []
        for client, (name, given) in enumerate(parts):
            name = '' if name == client else str(name)
            indices = self._indices(name, given, len(presence))
            classes = self._draw_classes(presence[indices].any(0), annotators, rng)
            annotators[classes] += 1
            shards.append(ClientShard(tuple(np.sort(indices).tolist()), tuple(classes.tolist()), name))
        return tuple(shards)

    def split(self, usable: np.ndarray, presence: np.ndarray, image_names: Sequence[str],
              rng: np.random.RandomState) -> list[tuple[str, np.ndarray]]:
        """Name and images of every client.

        Args:
            usable (np.ndarray): Images that show a class; the others are held
                by nobody.
            presence (np.ndarray): As in :meth:`make_clients`.
            image_names (Sequence[str]): Paths of all images.
            rng (np.random.RandomState): For every random choice.
        """
        raise NotImplementedError

    def _indices(self, client: str, given, num_images: int) -> np.ndarray:
        """The images that :meth:`split` gives to a client, as a partitioner of one's own may give them."""
        indices = np.asarray(given)
        if not indices.size:
            return np.empty(0, np.int64)
        if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
            raise FedSegError(f'{type(self).__name__}.split gives client {client} an array of {indices.dtype} with '
                              f'{indices.ndim} dimensions: give it a list of the indices of its images')
        if (wrong := (indices < 0) | (indices >= num_images)).any():
            raise FedSegError(f'{type(self).__name__}.split gives client {client} the image {indices[wrong][0]}, but '
                              f'there are {num_images}, counted from 0 to {num_images - 1}')
        return indices

    def _check_enough(self, usable: np.ndarray) -> None:
        if not len(usable):
            raise FedSegError('no image shows a class: every label is void or unannotated')
        if self.num_clients > len(usable):
            raise FedSegError(f'num_clients={self.num_clients} is more than the {len(usable)} images that show a '
                              'class: use fewer clients')

    def _draw_classes(self, shown: np.ndarray, annotators: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """The annotated classes of one client, ascending."""
        if self.classes_per_client is None:
            return np.arange(len(shown))
        candidates = rng.permutation(np.flatnonzero(shown))
        fewest_first = candidates[np.argsort(annotators[candidates], kind='stable')]
        return np.sort(fewest_first[:self.classes_per_client])
