"""SCAFFOLD: control variates correct the drift of each client."""
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedseg_mm.aggregators import Aggregator, WeightedMean
from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.structures import Broadcast, ClientContext, ClientUpdate, FederationInfo
from fedseg_mm.validation import check_number


@ALGORITHMS.register_module()
class SCAFFOLD(FedAvg):
    r"""SCAFFOLD (Karimireddy et al., ICML 2020, algorithm 1).

    .. math::
        y &\leftarrow y - \eta_l (g(y) - c_k + c) \\
        x &\leftarrow x + \eta_g \frac{1}{|S|} \sum_{k \in S} (y_k - x) \\
        c &\leftarrow c + \frac{1}{N} \sum_{k \in S} (c_k^+ - c_k)

    with :math:`c_k^+` the mean of the gradients that the client's losses gave
    along the way, as they enter the optimizer (clipped, without weight decay).
    The paper's option II infers it from how far the client moved, which is
    wrong under momentum; its option I takes another pass over the data. The
    cohort is averaged uniformly. A client keeps :math:`c_k` on disk, the size
    of the model's parameters; messages are twice as large as FedAvg's.

    Args:
        server_lr (float): :math:`\eta_g`, above 0. Defaults to 1.
        kwargs: Arguments of :class:`FedAvg`.
    """

    keeps_state = True

    def __init__(self, server_lr: float = 1.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.server_lr = check_number('federated.algorithm.server_lr', server_lr, above=0)
        self.control: dict[str, Tensor] = {}  # c
        self.change: Aggregator = WeightedMean()

    def setup(self, model: nn.Module, federation: FederationInfo) -> None:
        super().setup(model, federation)
        self.change = federation.make_aggregator()

    def start(self, model: nn.Module) -> None:
        super().start(model)
        self.control = {name: torch.zeros_like(self.weights[name]) for name in self.trained}

    def broadcast_extras(self) -> Mapping[str, Tensor]:
        return self.control

    def extras_like(self, broadcast: Broadcast) -> Mapping[str, Tensor]:
        return broadcast.extras

    def setup_client(self, context: ClientContext) -> None:
        context.memory['sum'] = {name: torch.zeros_like(context.broadcast.weights[name]) for name in self.trained}
        context.memory['steps'] = 0

    def adjust_gradients(self, context: ClientContext) -> None:
        names, _, gradients = context.gradients()
        torch._foreach_add_([context.memory['sum'][name] for name in names], gradients)
        context.memory['steps'] += 1
        torch._foreach_add_(gradients, [context.broadcast.extras[name] for name in names])
        if context.state:
            torch._foreach_sub_(gradients, [context.state[name] for name in names])

    def finish_client(self, context: ClientContext) -> dict[str, Tensor]:
        control: dict[str, Tensor] = context.memory['sum']
        if not context.memory['steps']:  # float16's scaler left out every one
            return control  # zero: no change
        torch._foreach_div_(list(control.values()), context.memory['steps'])
        before, context.state = context.state, control
        if not before:
            return control
        return dict(zip(control, torch._foreach_sub(list(control.values()), [before[name] for name in control])))

    def update_weight(self, update: ClientUpdate) -> float:
        return 1.0

    def receive(self, update: ClientUpdate) -> None:
        super().receive(update)
        self.change.add(update.extras, 1.0)

    def discard_round(self) -> None:
        super().discard_round()
        self.change.discard()

    def begin_round(self, round: int) -> None:
        super().begin_round(round)
        self.change.begin(None)

    def all_reduce(self) -> None:
        super().all_reduce()
        self.change.all_reduce(self.control)

    def server_update(self, weights: Mapping[str, Tensor], mean: dict[str, Tensor], total: float) -> None:
        if self.server_lr != 1:
            new, old = [mean[name] for name in self.trained], [weights[name] for name in self.trained]
            moved = torch._foreach_sub(new, old)
            torch._foreach_add_(new, moved, alpha=self.server_lr - 1)
        change = self.change.result()
        torch._foreach_add_(list(self.control.values()), [change[name] for name in self.control],
                            alpha=total / self.federation.num_clients)

    def state_dict(self) -> dict:
        return dict(control=self.control)

    def load_state_dict(self, state: dict) -> None:
        torch._foreach_copy_(list(self.control.values()), [state['control'][name] for name in self.control])
