"""The mean of the updates that have the nearest neighbours."""
import torch
from torch import Tensor

from fedseg_mm.aggregators.cohort_aggregator import CohortAggregator, squared_distances
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import AGGREGATORS
from fedseg_mm.validation import check_integer


@AGGREGATORS.register_module()
class MultiKrum(CohortAggregator):
    r"""Multi-Krum (Blanchard et al., NeurIPS 2017, sections 4 and 5).

    .. math::
        s(i) = \sum_{i \to j} \lVert w_i - w_j \rVert^2

    where j runs over the n - f - 2 updates nearest to update i, of n updates of
    which f may be malicious. The m updates with the lowest scores are averaged,
    all of their tensors, and each counts the same. Distances are measured over
    the trained weights. Of two equal scores, the update that was added first
    is preferred.

    Memory: the size of the cohort times that of the model, see
    :class:`CohortAggregator`.

    Args:
        num_malicious (int): f, at least 0. A round needs at least 2f + 3
            updates.
        num_selected (int, optional): m, at least 1. Defaults to n - f.

    Raises:
        FedSegError: An argument is not such an integer.
    """

    def __init__(self, num_malicious: int, num_selected: int | None = None) -> None:
        super().__init__()
        self.num_malicious = check_integer('federated.aggregator.num_malicious', num_malicious, 0)
        self.num_selected = num_selected if num_selected is None else check_integer(
            'federated.aggregator.num_selected', num_selected, 1)

    @property
    def min_updates(self) -> int:
        return max(2 * self.num_malicious + 3, self.num_selected or 0)

    def check_cohort(self, size: int) -> None:
        needed = 2 * self.num_malicious + 3
        if size < needed:
            raise FedSegError(
                f'{type(self).__name__} with federated.aggregator.num_malicious={self.num_malicious} needs at least '
                f'2 * {self.num_malicious} + 3 = {needed} updates in a round, but there are {size}: raise '
                'federated.clients_per_round or lower federated.aggregator.num_malicious')
        if self.num_selected is not None and size < self.num_selected:
            raise FedSegError(
                f'federated.aggregator.num_selected is {self.num_selected}, but a round has {size} updates: lower it '
                'or raise federated.clients_per_round')

    def scores(self) -> Tensor:
        """The score s of each update; has a shape (n, )."""
        distances = squared_distances(self.gram_matrix()).fill_diagonal_(torch.inf)  # none is its own neighbour
        return distances.sort(1).values[:, :len(distances) - self.num_malicious - 2].sum(1)

    def shares(self) -> Tensor:
        """Equal shares for the selected updates, 0 for the others.

        Raises:
            FedSegError: The round has too few updates.
        """
        size = len(self._updates)
        self.check_cohort(size)
        selected = self.scores().sort(stable=True).indices[:self.num_selected or size - self.num_malicious]
        return torch.zeros(size, dtype=torch.float64).index_fill_(0, selected, 1 / len(selected))
