"""Server optimizers: the cohort's mean update is a gradient for an optimizer of the server."""
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.registry import ALGORITHMS, check_number


class FedOpt(FedAvg):
    r"""Adaptive federated optimization (Reddi et al., ICLR 2021, algorithm 1); the base of its optimizers.

    .. math::
        \Delta_t = \sum_{k \in S_t} \frac{n_k}{n} (x_k^t - x_t), \qquad
        x_{t+1} = \mathrm{ServerOpt}(x_t, -\Delta_t, \eta, t)

    The optimizer steps on the displacement from the global model, which is
    zero before each step: a rate of 1 without momentum is then FedAvg bit for
    bit. Buffers, such as statistics of batch normalisation, are averaged.

    Args:
        kwargs: Arguments of :class:`FedAvg`.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.displacement: dict[str, Tensor] = {}
        self.optimizer: torch.optim.Optimizer | None = None

    def make_optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """The server's optimizer for these parameters."""
        raise NotImplementedError

    def start(self, model: nn.Module) -> None:
        super().start(model)
        self.displacement = {
            name: torch.zeros_like(self.weights[name]).requires_grad_() for name in self.trained}
        self.optimizer = self.make_optimizer(list(self.displacement.values()))

    @torch.no_grad()
    def advance(self, weights: Mapping[str, Tensor], mean: dict[str, Tensor]) -> None:
        new, steps = [mean[name] for name in self.trained], list(self.displacement.values())
        delta = torch._foreach_sub(new, [weights[name] for name in self.trained])
        torch._foreach_zero_(steps)
        for step, gradient in zip(steps, torch._foreach_neg(delta)):
            step.grad = gradient
        self.optimizer.step()
        # new = weights + displacement, written so that nothing is rounded where the displacement is the mean's
        torch._foreach_add_(new, torch._foreach_sub(steps, delta))
        self.optimizer.zero_grad()

    def state_dict(self) -> dict:
        return dict(optimizer=self.optimizer.state_dict())

    def load_state_dict(self, state: dict) -> None:
        self.optimizer.load_state_dict(state['optimizer'])


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
        self.betas = (check_number('federated.algorithm.betas.0', betas[0], least=0, below=1),
                      check_number('federated.algorithm.betas.1', betas[1], least=0, below=1))
        self.tau = check_number('federated.algorithm.tau', tau, above=0)

    def make_optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.server_lr, betas=self.betas, eps=self.tau)


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
    def step(self, closure=None) -> None:
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
