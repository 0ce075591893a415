"""Clients that annotate few classes: the splits non-IID1 and non-IID2 of FedSeg."""
from collections import deque

import numpy as np

from fedseg_mm.datasets.partition import ClientShard
from fedseg_mm.datasets.partitioners.partitioner import UNASSIGNED, Partitioner
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import PARTITIONERS


def assign_images(presence: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Choose one class per image that it shows, as balanced over classes as the images allow.

    Classes choose rare ones first, each up to an even share; then images are
    passed on along shared classes until no class that lacks images can be
    helped, and what is left goes to the most frequent class that it shows.

    Args:
        presence (np.ndarray): Whether an image shows a class, bool (images,
            classes).
        rng (np.random.RandomState): For every random choice.

    Returns:
        np.ndarray: The class of each image, int (images,); ``UNASSIGNED``
        where it shows none.
    """
    frequency = presence.sum(0)
    rare_first = np.argsort(frequency, kind='stable')
    rare_first = rare_first[frequency[rare_first] > 0]
    share = int(presence.any(1).sum()) // len(rare_first)
    assigned = np.full(len(presence), UNASSIGNED)
    for cls in rare_first:
        free = np.flatnonzero((assigned == UNASSIGNED) & presence[:, cls])
        assigned[rng.permutation(free)[:share]] = cls

    frequent_first = rare_first[::-1]
    left = np.flatnonzero((assigned == UNASSIGNED) & presence.any(1))
    assigned[left] = frequent_first[presence[left][:, frequent_first].argmax(1)]
    most_frequent = frequent_first[0]
    for cls in frequent_first[1:]:  # the remainder belongs on one class, not on a few
        own = np.flatnonzero(assigned == cls)
        movable = own[presence[own, most_frequent]]
        assigned[rng.permutation(movable)[:max(0, len(own) - share)]] = most_frequent
    _help_starving_classes(assigned, presence, rare_first, share, rng)
    return assigned


def _help_starving_classes(assigned, presence, classes, share, rng) -> None:
    """Pass images along chains of classes to the ones below their share, in place.

    ``movable[a, b]`` counts the images that class a has and b could have.
    A starving class takes from the fullest class that a chain of such
    images leads to, as long as that one has at least two images more.
    """
    num_classes = presence.shape[1]
    size = np.bincount(assigned[assigned != UNASSIGNED], minlength=num_classes)
    movable = np.stack([presence[assigned == cls].sum(0) for cls in range(num_classes)])
    for cls in classes:
        while size[cls] < share:
            towards = {cls: cls}  # the next class on the chain to `cls`
            queue = deque([cls])
            while queue:
                taker = queue.popleft()
                for giver in np.flatnonzero(movable[:, taker]):
                    if giver not in towards:
                        towards[giver] = taker
                        queue.append(giver)
            donor = max(towards, key=lambda giver: (size[giver], -giver))
            surplus = (size[donor] - size[cls]) // 2
            if surplus < 1:
                break
            chain = [donor]
            while chain[-1] != cls:
                chain.append(towards[chain[-1]])
            amount = min(surplus, share - size[cls], *(movable[a, b] for a, b in zip(chain, chain[1:])))
            for giver, taker in zip(chain, chain[1:]):
                images = np.flatnonzero((assigned == giver) & presence[:, taker])
                images = rng.permutation(images)[:amount]
                assigned[images] = taker
                shown = presence[images].sum(0)
                movable[giver] -= shown
                movable[taker] += shown
            size[donor] -= amount
            size[cls] += amount


@PARTITIONERS.register_module()
class ClassPartitioner(Partitioner):
    """Split a data set by class, as FedSeg (Miao et al., CVPR 2023) does.

    Every image goes to exactly one class that it contains
    (:func:`assign_images`). Each class's images are split evenly among its
    clients; those annotate their class and, with ``classes_per_client > 1``,
    further classes drawn from the ones that their images show (fewer, where
    their images show fewer).

    With fewer clients than classes a client holds several classes' images,
    and must annotate at least that many.

    Args:
        num_clients (int, optional): Number of clients K. If it is not a
            multiple of the number of classes, the classes with the most images
            get one more. Defaults to None: ``clients_per_class`` says it.
        classes_per_client (int): Annotated classes per client; 1 is non-IID1,
            2 is non-IID2. Defaults to 1.
        seed (int): The same seed gives the same partition on every machine.
            Defaults to 0.
        clients_per_class (int, optional): Instead of ``num_clients``: as many
            clients for each class that the images show.

    Raises:
        FedSegError: A number is not a positive integer, or not exactly one of
            ``num_clients`` and ``clients_per_class`` is given.
    """

    def __init__(self, num_clients: int | None = None, classes_per_client: int = 1, seed: int = 0,
                 clients_per_class: int | None = None) -> None:
        if (num_clients is None) == (clients_per_class is None):
            raise FedSegError('ClassPartitioner needs one of `num_clients` and `clients_per_class`; to inherit from a '
                              'config with the other one, set that to None')
        self.clients_per_class = clients_per_class
        if clients_per_class is not None:
            self._integer('clients_per_class', clients_per_class, 1)
        super().__init__(1 if num_clients is None else num_clients,
                         self._integer('classes_per_client', classes_per_client, 1), seed)
        self.classes_per_client: int = classes_per_client

    def make_clients(self, presence, image_names, class_names, rng) -> tuple[ClientShard, ...]:
        if self.clients_per_class is not None:
            self.num_clients = self.clients_per_class * int(presence.any(0).sum())
        usable = np.flatnonzero(presence.any(1))
        if self.clients_per_class is not None and self.num_clients > len(usable) > 0:
            raise FedSegError(f'clients_per_class={self.clients_per_class} makes {self.num_clients} clients, which is '
                              f'more than the {len(usable)} images that show a class: lower it')
        self._check_enough(usable)
        if self.num_clients * self.classes_per_client < (shown := int(presence.any(0).sum())):
            raise FedSegError(f'num_clients={self.num_clients} with classes_per_client={self.classes_per_client} '
                              f'cannot cover {shown} classes: raise one of them')
        held = self._split_among_clients(assign_images(presence, rng), presence, rng)
        return tuple(
            ClientShard(
                indices=tuple(np.sort(indices).tolist()),
                classes=self._annotated_classes(own_classes, presence[indices].any(0), rng))
            for own_classes, indices in held)

    def _split_among_clients(self, assigned, presence, rng) -> list[tuple[list[int], np.ndarray]]:
        """The classes and images of each client, clients ordered by class."""
        num_classes = presence.shape[1]
        size = np.bincount(assigned[assigned != UNASSIGNED], minlength=num_classes)
        images = [rng.permutation(np.flatnonzero(assigned == cls)) for cls in range(num_classes)]
        frequency = presence.sum(0)
        most_first = [int(cls) for cls in np.lexsort((-frequency, -size)) if size[cls] > 0]
        if self.num_clients >= len(most_first):
            number = np.zeros(num_classes, np.int64)
            number[most_first] = np.minimum(self.num_clients // len(most_first), size[most_first])
            while (missing := self.num_clients - number.sum()) > 0:
                open_classes = [cls for cls in most_first if number[cls] < size[cls]]
                number[open_classes[:missing]] += 1
            return [([cls], part) for cls in range(num_classes) if size[cls] > 0
                    for part in np.array_split(images[cls], number[cls])]
        # fewer clients than classes: the next largest class goes to the client with fewest images that has room
        groups: list[list[int]] = [[] for _ in range(self.num_clients)]
        for cls in most_first:
            open_groups = [group for group in groups if len(group) < self.classes_per_client]
            min(open_groups, key=lambda group: size[group].sum()).append(cls)
        return [(sorted(group), np.concatenate([images[cls] for cls in group])) for group in groups]

    def _annotated_classes(self, own_classes: list[int], shown: np.ndarray, rng) -> tuple[int, ...]:
        shown[own_classes] = False
        further = np.flatnonzero(shown)
        drawn = rng.permutation(further)[:self.classes_per_client - len(own_classes)]
        return tuple(sorted([*own_classes, *map(int, drawn)]))
