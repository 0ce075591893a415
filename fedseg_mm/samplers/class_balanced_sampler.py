"""Every class is annotated by as many clients of the cohorts as any other."""
from collections.abc import Sequence

import numpy as np

from fedseg_mm.datasets.partition import ClientShard
from fedseg_mm.registry import CLIENT_SAMPLERS
from fedseg_mm.samplers.client_sampler import ClientSampler
from fedseg_mm.seeding import derived_generator


@CLIENT_SAMPLERS.register_module()
class ClassBalancedSampler(ClientSampler):
    """``clients_per_round`` clients, drawn by the classes that they annotate, one class after the other.

    The classes take turns in an order that is redrawn whenever all have had
    theirs; a round continues the turns of the round before. In a class's turn,
    one of its clients joins the cohort, drawn uniformly from those that are
    not in it yet. With FedSeg's partitions, uniform cohorts leave out a class
    for many rounds by chance; these do not.
    """

    def setup(self, shards: Sequence[ClientShard], clients_per_round: int) -> None:
        super().setup(shards, clients_per_round)
        #: The clients that annotate each class that anybody annotates.
        self.of_class = [np.array([client for client, shard in enumerate(shards) if cls in shard.classes])
                         for cls in sorted({cls for shard in shards for cls in shard.classes})]

    def cohort(self, seed: int, round: int) -> list[int]:
        generator = derived_generator(seed, 'cohort', round)
        cohort: list[int] = []
        turn = round * self.clients_per_round
        while len(cohort) < self.clients_per_round:
            cycle, place = divmod(turn, len(self.of_class))
            cls = derived_generator(seed, 'classes', cycle).permutation(len(self.of_class))[place]
            free = np.setdiff1d(self.of_class[cls], cohort)
            if not len(free):  # all of its clients are in the cohort
                free = np.setdiff1d(np.arange(self.num_clients), cohort)
            cohort.append(int(generator.choice(free)))
            turn += 1
        return cohort
