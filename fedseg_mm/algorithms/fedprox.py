"""FedProx: clients are held near the global model."""
import torch
from torch import nn

from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.algorithms.proximal_step import too_strong
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.structures import ClientContext
from fedseg_mm.validation import check_number


@ALGORITHMS.register_module()
class FedProx(FedAvg):
    r"""FedProx (Li et al., MLSys 2020, equation 2).

    .. math::
        \min_w h_k(w; w^t) = F_k(w) + \frac{\mu}{2} \lVert w - w^t \rVert^2

    whose gradient :math:`\mu (w - w^t)` is added to the one of the losses,
    after clipping and once per optimizer step, however many batches are
    accumulated for it.

    Args:
        mu (float): :math:`\mu`, at least 0. Defaults to 0.01.
        kwargs: Arguments of :class:`FedAvg`.
    """

    def __init__(self, mu: float = 0.01, **kwargs) -> None:
        super().__init__(**kwargs)
        self.mu = check_number('federated.algorithm.mu', mu, least=0)

    def adjust_gradients(self, context: ClientContext) -> None:
        names, parameters, gradients = context.gradients()
        if self.mu and names:
            drift = torch._foreach_sub(parameters, [context.broadcast.weights[name] for name in names])
            torch._foreach_add_(gradients, drift, alpha=self.mu)

    def warnings(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
        return super().warnings(optimizer, model) + too_strong('federated.algorithm.mu', self.mu, optimizer)

    @property
    def remedy(self) -> str:
        return f'lower federated.algorithm.mu={self.mu:g} or the learning rate' if self.mu else super().remedy
