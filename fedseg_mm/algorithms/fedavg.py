"""FedAvg, and the seams that every other method is built from."""
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedseg_mm.algorithms.weighted_mean import WeightedMean
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.structures import Broadcast, ClientUpdate


@ALGORITHMS.register_module()
class FedAvg:
    r"""FederatedAveraging (McMahan et al., AISTATS 2017, algorithm 1).

    .. math::
        w_{t+1} = \sum_{k \in S_t} \frac{n_k}{n} w^k_{t+1},
        \qquad n = \sum_{k \in S_t} n_k

    with :math:`n_k` the number of images of client k and :math:`S_t` the
    cohort. Normalisation statistics are averaged like weights, as FedSeg does.

    A method overrides the smallest step that it changes.
    """

    def __init__(self) -> None:
        self.mean = WeightedMean()
        self.weights: dict[str, Tensor] = {}

    def setup_model(self, model: nn.Module) -> None:
        """Add what the method needs to the model, before the optimizer is built."""

    def start(self, model: nn.Module) -> None:
        """Take the model's weights, initial or resumed, as the global model."""
        self.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def broadcast(self, round: int) -> Broadcast:
        """What every client of the cohort receives."""
        return Broadcast(round, self.weights)

    def receive(self, update: ClientUpdate) -> None:
        """Fold a client's update in; it is not kept."""
        self.mean.add(update.weights, self.update_weight(update))

    def update_weight(self, update: ClientUpdate) -> float:
        """The update's weight in the mean: :math:`n_k`."""
        return update.num_images

    def step(self, model: nn.Module) -> None:
        """Make the new global model of the updates received, and load it into ``model``."""
        self.weights = self.mean.take(reuse=self.weights)
        load_weights(model, self.weights)

    def state_dict(self) -> dict:
        """Server state that must survive, beside the global model."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`."""


@torch.no_grad()
def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy a state_dict into the model, in place and in one pass."""
    own = model.state_dict()
    torch._foreach_copy_(list(own.values()), [weights[name] for name in own])
