"""FedBN: clients keep their layers of batch normalisation to themselves."""
from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.registry import ALGORITHMS


@ALGORITHMS.register_module()
class FedBN(FedAvg):
    """FedBN (Li et al., ICLR 2021): FedAvg, but every client keeps its batch normalisation layers.

    The global model that is saved and evaluated has the mean of the layers of
    the last cohort. Any other method does the same with
    ``batch_norm='local'``.

    Args:
        weighting (str): As in :class:`FedAvg`. Defaults to 'images'.
    """

    def __init__(self, weighting: str = 'images') -> None:
        super().__init__('local', weighting)
