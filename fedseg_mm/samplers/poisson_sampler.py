"""Every client decides for itself, as the accounting of differential privacy assumes."""
from collections.abc import Sequence

from fedseg_mm.datasets.partition import ClientShard
from fedseg_mm.registry import CLIENT_SAMPLERS
from fedseg_mm.samplers.client_sampler import ClientSampler
from fedseg_mm.seeding import derived_generator
from fedseg_mm.validation import check_number


@CLIENT_SAMPLERS.register_module()
class PoissonSampler(ClientSampler):
    """Every client takes part with the same probability, independently of the others.

    Cohorts differ in size. In a round without any client, the global model
    stays as it is.

    Args:
        probability (float, optional): Above 0, at most 1. Defaults to None:
            ``clients_per_round`` divided by the number of clients, so that
            this is the mean size of a cohort.

    Raises:
        FedSegError: It is no probability.
    """

    def __init__(self, probability: float | None = None) -> None:
        if probability is not None:
            check_number('federated.sampler.probability', probability, above=0, most=1)
        self.probability = probability

    def setup(self, shards: Sequence[ClientShard], clients_per_round: int) -> None:
        super().setup(shards, clients_per_round)
        self.mean_share = clients_per_round / len(shards)

    def cohort(self, seed: int, round: int) -> list[int]:
        generator = derived_generator(seed, 'cohort', round)
        probability = self.mean_share if self.probability is None else self.probability
        takes_part = generator.random(self.num_clients) < probability
        return generator.permutation(takes_part.nonzero()[0]).tolist()
