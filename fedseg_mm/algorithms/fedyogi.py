"""FedYogi: Yogi at the server."""
import torch
from torch import Tensor

from fedseg_mm.algorithms.fedadam import FedAdam
from fedseg_mm.registry import ALGORITHMS


@ALGORITHMS.register_module()
class FedYogi(FedAdam):
    r"""FedYogi (Reddi et al., ICLR 2021, algorithm 2): as FedAdam, but for

    .. math::
        v_t = v_{t-1} - (1 - \beta_2) \Delta_t^2 \, \mathrm{sign}(v_{t-1} - \Delta_t^2)
    """

    def make_optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        return Yogi(parameters, lr=self.server_lr, betas=self.betas, eps=self.tau)


class Yogi(torch.optim.Optimizer):
    """Yogi (Zaheer et al., NeurIPS 2018, algorithm 2), which torch does not have; no bias correction.

    Args:
        params: Parameters.
        lr (float): Rate.
        betas (tuple[float, float]): Decay of the two moments.
        eps (float): Added to the root of the second moment, which also starts at its square.
    """

    def __init__(self, params, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps))

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [parameter for parameter in group['params'] if parameter.grad is not None]
            for parameter in parameters:
                if parameter not in self.state:
                    self.state[parameter] = dict(first=torch.zeros_like(parameter),
                                                 second=torch.full_like(parameter, group['eps']**2))
            gradients = [parameter.grad for parameter in parameters]
            first, second = ([self.state[parameter][name] for parameter in parameters]
                             for name in ('first', 'second'))
            torch._foreach_lerp_(first, gradients, 1 - group['betas'][0])
            squares = torch._foreach_mul(gradients, gradients)
            signs = torch._foreach_sign(torch._foreach_sub(second, squares))
            torch._foreach_addcmul_(second, squares, signs, value=group['betas'][1] - 1)
            roots = torch._foreach_add(torch._foreach_sqrt(second), group['eps'])
            torch._foreach_addcdiv_(parameters, first, roots, value=-group['lr'])
