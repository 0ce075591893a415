"""The point with the smallest sum of distances to the updates."""
from torch import Tensor

from fedseg_mm.aggregators.cohort_aggregator import CohortAggregator, squared_distances
from fedseg_mm.registry import AGGREGATORS
from fedseg_mm.validation import check_integer, check_number


@AGGREGATORS.register_module()
class GeometricMedian(CohortAggregator):
    r"""RFA, the geometric median (Pillutla et al., IEEE TSP 2022).

    .. math::
        \min_z \sum_k \alpha_k \lVert z - w_k \rVert, \qquad
        \alpha_k = \frac{n_k}{\sum_j n_j}

    by the smoothed Weiszfeld algorithm, from the weighted mean:

    .. math::
        \beta_k = \frac{\alpha_k}{\max(\epsilon, \lVert z - w_k \rVert)}, \qquad
        z \leftarrow \frac{\sum_k \beta_k w_k}{\sum_k \beta_k}

    Each update has one distance, measured over the trained weights. Because z
    is always a weighted sum of the updates, the iterations need only the inner
    products of updates, which are computed once. The result stays near the
    honest updates as long as these hold more than half of the weight; a client
    that overstates its :math:`n_k` gains weight, unless the algorithm counts
    all clients alike.

    Memory: the size of the cohort times that of the model, see
    :class:`CohortAggregator`.

    Args:
        iterations (int): Iterations of the algorithm, at least 1. Defaults to
            100.
        epsilon (float): :math:`\epsilon`, above 0: distances below it count as
            this long, so that none is divided by zero. Defaults to 1e-6.

    Raises:
        FedSegError: An argument is not such a number.
    """

    def __init__(self, iterations: int = 100, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.iterations = check_integer('federated.aggregator.iterations', iterations, 1)
        self.epsilon = check_number('federated.aggregator.epsilon', epsilon, above=0)

    def shares(self) -> Tensor:
        gram, weights = self.gram_matrix(), super().shares()
        shares = weights
        for _ in range(self.iterations):
            shares = weights / squared_distances(gram, shares).sqrt_().clamp_(min=self.epsilon)
            shares /= shares.sum()
        return shares
