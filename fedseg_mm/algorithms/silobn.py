"""SiloBN: clients keep the statistics of batch normalisation to themselves."""
from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.registry import ALGORITHMS


@ALGORITHMS.register_module()
class SiloBN(FedAvg):
    """SiloBN (Andreux et al., DCL 2020): FedAvg, but every client keeps the statistics of batch normalisation.

    The global model that is saved and evaluated has the mean of the
    statistics of the last cohort. Any other method does the same with
    ``batch_norm='local_statistics'``.

    Args:
        weighting (str): As in :class:`FedAvg`. Defaults to 'images'.
    """

    def __init__(self, weighting: str = 'images') -> None:
        super().__init__('local_statistics', weighting)
