"""Server optimizers: the cohort's mean update is a gradient for an optimizer of the server."""
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedseg_mm.algorithms.fedavg import FedAvg


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

    #: The server's; there from start on.
    optimizer: torch.optim.Optimizer
    keeps_state = True

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.displacement: dict[str, Tensor] = {}

    def make_optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """The server's optimizer for these parameters."""
        raise NotImplementedError

    def start(self, model: nn.Module) -> None:
        super().start(model)
        self.displacement = {
            name: torch.zeros_like(self.weights[name]).requires_grad_() for name in self.trained}
        self.optimizer = self.make_optimizer(list(self.displacement.values()))

    @torch.no_grad()
    def server_update(self, weights: Mapping[str, Tensor], mean: dict[str, Tensor], total: float) -> None:
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
        settings = [{key: value for key, value in group.items() if key != 'params'}
                    for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state['optimizer'])
        for group, setting in zip(self.optimizer.param_groups, settings):
            group.update(setting)  # what the config says now
