"""FedAvgM: momentum at the server."""
import torch
from torch import Tensor

from fedseg_mm.algorithms.fedopt import FedOpt
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.validation import check_number


@ALGORITHMS.register_module()
class FedAvgM(FedOpt):
    """FedAvg with server momentum (Hsu et al., 2019): torch's SGD.

    Args:
        server_lr (float): Rate of the server, above 0. Defaults to 1.
        momentum (float): From 0 to below 1. Defaults to 0.9.
        kwargs: Arguments of :class:`FedAvg`.
    """

    def __init__(self, server_lr: float = 1.0, momentum: float = 0.9, **kwargs) -> None:
        super().__init__(**kwargs)
        self.server_lr = check_number('federated.algorithm.server_lr', server_lr, above=0)
        self.momentum = check_number('federated.algorithm.momentum', momentum, least=0, below=1)

    def make_optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.server_lr, momentum=self.momentum)
