"""What a method sees of a client while it trains."""
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fedseg_mm.aggregators import Aggregator, WeightedMean
from fedseg_mm.processors import ProcessorPipeline
from fedseg_mm.structures.messages import Broadcast

if TYPE_CHECKING:
    from fedseg_mm.models import FrozenModel, PixelMaps


@dataclass(frozen=True)
class FederationInfo:
    """What a method is told once, before training.

    Args:
        num_clients (int): Clients K of the federation.
        num_classes (int): Classes of the data set.
        seed (int): Seed of the run.
        make_aggregator (Callable): Makes an aggregator as the config names
            it. Defaults to the weighted mean.
        processors (ProcessorPipeline): What is done to updates. Defaults to
            nothing.
    """
    num_clients: int
    num_classes: int
    seed: int
    make_aggregator: Callable[[], Aggregator] = WeightedMean
    processors: ProcessorPipeline = field(default_factory=ProcessorPipeline)


@dataclass
class ClientContext:
    """One client in one round, from before its first step to after its last.

    Args:
        client (int): The client's id.
        classes (tuple[int]): Its annotated classes.
        num_images (int): Images that it holds.
        broadcast (Broadcast): What the server sent.
        model (nn.Module): The local model, loaded with the weights received.
        frozen_model (FrozenModel): Runs the architecture with other weights.
        survey (Callable): Yields images (N, 3, H, W) and labels (N, H, W) of
            all of the client's images, batch by batch; there for methods
            whose ``surveys(round)`` is True, before training, and once.
        own (frozenset[str]): Names of the weights that the client does not
            share; no method moves them.
        own_weights (Mapping[str, Tensor]): Those that it kept, empty at first.
        state (dict[str, Tensor]): What the client keeps from round to round,
            on disk; empty at first. Methods replace its entries.
        memory (dict): Scratch space of the method for this client and round.
        images (Tensor): In a step, the current batch, normalised, (N, 3, H, W).
        labels (Tensor): Its labels (N, H, W): 254 unannotated, 255
            void.
        maps (PixelMaps): What the local model makes of it: see
            ``embeddings``, ``logits`` and ``head_input``.
    """
    client: int
    classes: tuple[int, ...]
    num_images: int
    broadcast: Broadcast
    model: nn.Module
    frozen_model: 'FrozenModel'
    survey: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    own: frozenset[str] = frozenset()
    own_weights: Mapping[str, Tensor] = field(default_factory=dict)
    state: dict[str, Tensor] = field(default_factory=dict)
    memory: dict = field(default_factory=dict)
    # there in every step, and not outside of one
    images: Tensor = None  # type: ignore[assignment]
    labels: Tensor = None  # type: ignore[assignment]
    maps: 'PixelMaps' = None  # type: ignore[assignment]
    _annotates: Tensor | None = None

    @property
    def embeddings(self) -> Tensor:
        """What enters the classifier, pixel by pixel, (N, D, h, w)."""
        return self.maps.embeddings

    @property
    def logits(self) -> Tensor:
        """What leaves the classifier, before it is resized to the labels, (N, C, h, w)."""
        return self.maps.logits

    @property
    def head_input(self) -> Tensor:
        """The map that enters the decode head, (N, channels, h', w'); of several, the deepest."""
        return self.maps.head_input

    def annotates(self, num_classes: int, device: torch.device) -> Tensor:
        """Which classes the client annotates, bool (C,); copied to the device once per client and round."""
        if self._annotates is None:
            mask = torch.zeros(num_classes, dtype=torch.bool)
            mask[list(self.classes)] = True
            self._annotates = mask.to(device, non_blocking=True)
        return self._annotates

    @property
    def received(self) -> Mapping[str, Tensor]:
        """The whole model that the client starts from: what was broadcast, and what it keeps."""
        return {**self.broadcast.model, **self.own_weights} if self.own_weights else self.broadcast.model

    def gradients(self) -> tuple[list[str], list[Tensor], list[Tensor]]:
        """Names, parameters and gradients of the shared weights that this step trains."""
        named = [(name, parameter, parameter.grad) for name, parameter in self.model.named_parameters()
                 if parameter.grad is not None and name not in self.own]
        return [name for name, _, _ in named], [parameter for _, parameter, _ in named], [grad for _, _, grad in named]
