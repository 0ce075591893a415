"""FedDyn: a term added to each client's objective moves its optimum to the global one."""
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.algorithms.proximal_step import too_strong
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.structures import ClientContext, ClientUpdate
from fedseg_mm.validation import check_number


@ALGORITHMS.register_module()
class FedDyn(FedAvg):
    r"""FedDyn (Acar et al., ICLR 2021, algorithm 1).

    .. math::
        \theta_k^t &= \arg\min_\theta L_k(\theta)
        - \langle \nabla L_k(\theta_k^{t-1}), \theta \rangle
        + \frac{\alpha}{2} \lVert \theta - \theta^{t-1} \rVert^2 \\
        \nabla L_k(\theta_k^t) &= \nabla L_k(\theta_k^{t-1})
        - \alpha (\theta_k^t - \theta^{t-1}) \\
        h^t &= h^{t-1} - \frac{\alpha}{m} \sum_{k \in S_t} (\theta_k^t - \theta^{t-1}) \\
        \theta^t &= \frac{1}{|S_t|} \sum_{k \in S_t} \theta_k^t - \frac{1}{\alpha} h^t

    with m clients. The cohort is averaged uniformly. Both additions to the
    gradient are made after clipping. A client keeps its last gradient on
    disk, the size of the model's parameters; buffers, such as the statistics
    of batch normalisation, are averaged.

    Args:
        alpha (float): :math:`\alpha`, above 0. Defaults to 0.01.
        kwargs: Arguments of :class:`FedAvg`.
    """

    keeps_state = True

    def __init__(self, alpha: float = 0.01, **kwargs) -> None:
        super().__init__(**kwargs)
        self.alpha = check_number('federated.algorithm.alpha', alpha, above=0)
        self.drift: dict[str, Tensor] = {}  # h

    def start(self, model: nn.Module) -> None:
        super().start(model)
        self.drift = {name: torch.zeros_like(self.weights[name]) for name in self.trained}

    def warnings(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
        return super().warnings(optimizer, model) + too_strong('federated.algorithm.alpha', self.alpha, optimizer)

    @property
    def remedy(self) -> str:
        return f'lower federated.algorithm.alpha={self.alpha:g} or the learning rate'

    def adjust_gradients(self, context: ClientContext) -> None:
        names, parameters, gradients = context.gradients()
        towards = torch._foreach_sub(parameters, [context.broadcast.weights[name] for name in names])
        torch._foreach_add_(gradients, towards, alpha=self.alpha)
        if context.state:
            torch._foreach_sub_(gradients, [context.state[name] for name in names])

    def finish_client(self, context: ClientContext) -> dict[str, Tensor]:
        own = dict(context.model.named_parameters())
        gradient = torch._foreach_sub([context.broadcast.weights[name] for name in self.trained],
                                      [own[name].detach() for name in self.trained])
        torch._foreach_mul_(gradient, self.alpha)
        if context.state:
            torch._foreach_add_(gradient, [context.state[name] for name in self.trained])
        context.state = dict(zip(self.trained, gradient))
        return {}

    def update_weight(self, update: ClientUpdate) -> float:
        return 1.0

    def server_update(self, weights: Mapping[str, Tensor], mean: dict[str, Tensor], total: float) -> None:
        drift, new = list(self.drift.values()), [mean[name] for name in self.drift]
        moved = torch._foreach_sub(new, [weights[name] for name in self.drift])
        torch._foreach_add_(drift, moved, alpha=-self.alpha * total / self.federation.num_clients)
        torch._foreach_add_(new, drift, alpha=-1 / self.alpha)

    def state_dict(self) -> dict:
        return dict(drift=self.drift)

    def load_state_dict(self, state: dict) -> None:
        torch._foreach_copy_(list(self.drift.values()), [state['drift'][name] for name in self.drift])
