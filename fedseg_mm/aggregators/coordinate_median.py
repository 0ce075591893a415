"""The median of every coordinate."""
from torch import Tensor

from fedseg_mm.aggregators.cohort_aggregator import CohortAggregator
from fedseg_mm.registry import AGGREGATORS


@AGGREGATORS.register_module()
class CoordinateMedian(CohortAggregator):
    r"""Coordinate-wise median (Yin et al., ICML 2018, definition 1).

    .. math::
        m_j = \operatorname{med} \{ w_{k,j} : k \in S_t \}

    for every coordinate j. With an even number of updates, it is the mean of
    the two middle values. Every update counts the same, so that a client gains
    nothing by overstating its number of images.

    Memory: the size of the cohort times that of the model, see
    :class:`CohortAggregator`.
    """

    drops_extremes = True

    def combine(self, updates: Tensor, shares: Tensor) -> Tensor:
        ordered = updates.sort(0).values
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else ordered[middle - 1].lerp(ordered[middle], 0.5)
