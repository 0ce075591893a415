"""The one update that has the nearest neighbours."""
from fedseg_mm.aggregators.multi_krum import MultiKrum
from fedseg_mm.registry import AGGREGATORS


@AGGREGATORS.register_module()
class Krum(MultiKrum):
    r"""Krum (Blanchard et al., NeurIPS 2017, section 4).

    .. math::
        w_{t+1} = w_{i^*}, \qquad i^* = \arg\min_i s(i)

    with the score s of :class:`MultiKrum`, whose case m = 1 this is: the whole
    update of one client is taken, bit for bit.

    Memory: the size of the cohort times that of the model, see
    :class:`CohortAggregator`.

    Args:
        num_malicious (int): f, the number of updates that may be malicious, at
            least 0. A round needs at least 2f + 3 updates.

    Raises:
        FedSegError: ``num_malicious`` is not such an integer.
    """

    def __init__(self, num_malicious: int) -> None:
        super().__init__(num_malicious, num_selected=1)
