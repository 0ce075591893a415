"""FedAdam: Adam at the server."""
import torch
from torch import Tensor

from fedseg_mm.algorithms.fedopt import FedOpt
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.validation import check_number


@ALGORITHMS.register_module()
class FedAdam(FedOpt):
    r"""FedAdam (Reddi et al., ICLR 2021, algorithm 2): torch's Adam, which corrects the bias of its first steps.

    Args:
        server_lr (float): :math:`\eta`, above 0. Defaults to 0.01.
        betas (tuple[float, float]): :math:`\beta_1, \beta_2`, from 0 to below 1. Defaults to (0.9, 0.99).
        tau (float): :math:`\tau`, the adaptivity, above 0. Defaults to 1e-3.
        kwargs: Arguments of :class:`FedAvg`.
    """

    def __init__(self, server_lr: float = 0.01, betas: tuple[float, float] = (0.9, 0.99), tau: float = 1e-3,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        self.server_lr = check_number('federated.algorithm.server_lr', server_lr, above=0)
        if not isinstance(betas, (list, tuple)) or len(betas) != 2:
            raise FedSegError(f'federated.algorithm.betas must be two numbers, but is {betas!r}')
        self.betas = (check_number('federated.algorithm.betas.0', betas[0], least=0, below=1),
                      check_number('federated.algorithm.betas.1', betas[1], least=0, below=1))
        self.tau = check_number('federated.algorithm.tau', tau, above=0)

    def make_optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.server_lr, betas=self.betas, eps=self.tau)
