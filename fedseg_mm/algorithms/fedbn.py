"""FedBN: clients keep their layers of batch normalisation to themselves."""
from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.registry import ALGORITHMS


@ALGORITHMS.register_module()
class FedBN(FedAvg):
    """FedBN (Li et al., ICLR 2021): FedAvg, but every client keeps its batch normalisation layers.

    The global model that is saved and evaluated has the mean of the layers of
    the last cohort. Any other method does the same with
    ``batch_norm='local'``.
    """

    def __init__(self) -> None:
        super().__init__(batch_norm='local')
