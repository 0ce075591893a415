"""Full participation."""
from collections.abc import Sequence

from fedseg_mm.registry import CLIENT_SAMPLERS
from fedseg_mm.samplers.client_sampler import ClientSampler


@CLIENT_SAMPLERS.register_module()
class AllClientsSampler(ClientSampler):
    """Every client in every round, in the order of the partition; ``clients_per_round`` has no effect."""

    def setup(self, num_clients: int, clients_per_round: int, num_images: Sequence[int]) -> None:
        super().setup(num_clients, num_clients, num_images)

    def cohort(self, seed: int, round: int) -> list[int]:
        return list(range(self.num_clients))
