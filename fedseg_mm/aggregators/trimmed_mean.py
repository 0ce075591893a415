"""The mean of every coordinate without its extremes."""
from torch import Tensor

from fedseg_mm.aggregators.cohort_aggregator import CohortAggregator
from fedseg_mm.registry import AGGREGATORS
from fedseg_mm.validation import check_number


@AGGREGATORS.register_module()
class TrimmedMean(CohortAggregator):
    r"""Coordinate-wise trimmed mean (Yin et al., ICML 2018, definition 2).

    .. math::
        m_j = \frac{1}{n - 2b} \sum_{i=b+1}^{n-b} w_{(i),j}, \qquad
        b = \lfloor \beta n \rfloor

    with :math:`w_{(1),j} \le \dots \le w_{(n),j}` the sorted values of
    coordinate j in the n updates, of which up to b may be malicious. Every
    update counts the same, however many images its client has. Where
    :math:`\beta n` is below 1, nothing is dropped: this is then the plain mean.

    Memory: the size of the cohort times that of the model, see
    :class:`CohortAggregator`.

    Args:
        trim (float): :math:`\beta`, the share of the updates that is dropped
            at either end; at least 0, and below 0.5 so that some are left.
            Defaults to 0.1.

    Raises:
        FedSegError: ``trim`` is not such a number.
    """

    def __init__(self, trim: float = 0.1) -> None:
        super().__init__()
        self.trim = check_number('federated.aggregator.trim', trim, least=0, below=0.5)
        self.drops_extremes = self.trim > 0

    def num_trimmed(self, num_updates: int) -> int:
        """How many values are dropped at either end: b."""
        # 0.29 * 100 is 28.999…, which must not become 28
        return min(int(self.trim * num_updates + 1e-9), (num_updates - 1) // 2)

    def combine(self, updates: Tensor, shares: Tensor) -> Tensor:
        dropped = self.num_trimmed(len(updates))
        kept = updates.sort(0).values[dropped:len(updates) - dropped] if dropped else updates
        return kept[0] if len(kept) == 1 else kept.mean(0)
