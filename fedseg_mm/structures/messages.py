"""What goes down to a client and what comes back."""
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Size of the tensors, in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@dataclass(frozen=True)
class Broadcast:
    """What the server sends to every client of a cohort.

    Args:
        round (int): The round, from 0.
        weights (Mapping[str, Tensor]): The global model, as its state_dict;
            to be read during this round only.
        extras (Mapping[str, Tensor]): What a method sends beside it.
    """
    round: int
    weights: Mapping[str, Tensor]
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Size of the message, in bytes."""
        return num_bytes(self.weights) + num_bytes(self.extras)


@dataclass(frozen=True)
class ClientUpdate:
    """What a client sends back after its local training.

    Args:
        client (int): The client's id.
        weights (Mapping[str, Tensor]): The local model, as its state_dict.
            In one process these are the live tensors of the one model:
            fold them before the next client trains.
        num_images (int): Images that the client holds.
        num_steps (int): Batches that it trained on.
        metrics (Mapping[str, float]): Means over its batches, ``loss`` first
            of all.
        is_finite (bool): Whether all weights and the loss are finite.
        extras (Mapping[str, Tensor]): What a method sends beside it.
    """
    client: int
    weights: Mapping[str, Tensor]
    num_images: int
    num_steps: int
    metrics: Mapping[str, float]
    is_finite: bool = True
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Size of the message, in bytes."""
        return num_bytes(self.weights) + num_bytes(self.extras)
