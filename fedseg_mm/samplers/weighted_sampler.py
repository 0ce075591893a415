"""Some clients are drawn more often than others."""
from collections.abc import Sequence

import numpy as np

from fedseg_mm.datasets.partition import ClientShard
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import CLIENT_SAMPLERS
from fedseg_mm.samplers.client_sampler import ClientSampler
from fedseg_mm.seeding import derived_generator
from fedseg_mm.validation import is_finite


@CLIENT_SAMPLERS.register_module()
class WeightedSampler(ClientSampler):
    """``clients_per_round`` clients without replacement, one after the other in proportion to their weights.

    Args:
        weights (Sequence[float] or str): A number for each client, at least
            0; or 'images', the number of its images. Defaults to 'images'.

    Raises:
        FedSegError: The weights are neither.
    """

    def __init__(self, weights: Sequence[float] | str = 'images') -> None:
        listed = isinstance(weights, (list, tuple)) and all(
            isinstance(weight, (int, float)) and is_finite(weight) and weight >= 0 for weight in weights)
        if weights != 'images' and not listed:
            raise FedSegError("federated.sampler.weights must be 'images' or a list of numbers of at least 0, but is "
                              f'{weights!r}')
        self.weights = weights

    def setup(self, shards: Sequence[ClientShard], clients_per_round: int) -> None:
        super().setup(shards, clients_per_round)
        images = [len(shard.indices) for shard in shards]
        weights = np.array(images if self.weights == 'images' else self.weights, float)
        if len(weights) != len(shards):
            raise FedSegError(f'federated.sampler.weights has {len(weights)} numbers, but there are {len(shards)} '
                              'clients')
        if (weights > 0).sum() < clients_per_round:
            raise FedSegError(f'only {(weights > 0).sum()} of the weights in federated.sampler.weights are above 0, '
                              f'but federated.clients_per_round is {clients_per_round}')
        self.probabilities = weights / weights.sum()

    def cohort(self, seed: int, round: int) -> list[int]:
        generator = derived_generator(seed, 'cohort', round)
        return generator.choice(self.num_clients, self.clients_per_round, replace=False,
                                p=self.probabilities).tolist()
