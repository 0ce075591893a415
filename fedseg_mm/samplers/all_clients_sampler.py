"""Full participation."""
from collections.abc import Sequence

from fedseg_mm.datasets.partition import ClientShard
from fedseg_mm.registry import CLIENT_SAMPLERS
from fedseg_mm.samplers.client_sampler import ClientSampler


@CLIENT_SAMPLERS.register_module()
class AllClientsSampler(ClientSampler):
    """Every client in every round, in the order of the partition; ``clients_per_round`` has no effect."""

    takes_all = True

    def setup(self, shards: Sequence[ClientShard], clients_per_round: int) -> None:
        super().setup(shards, len(shards))

    def cohort(self, seed: int, round: int) -> list[int]:
        return list(range(self.num_clients))
