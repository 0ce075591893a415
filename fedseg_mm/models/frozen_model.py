"""The architecture with the weights of another model, to compare with."""
import copy
from collections.abc import Mapping
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedseg_mm.models.pixel_features import PixelFeatures, PixelMaps


def _shape_of(tensor: Tensor) -> Tensor:
    shape = torch.empty_like(tensor, device='meta')
    return nn.Parameter(shape, requires_grad=False) if isinstance(tensor, nn.Parameter) else shape


class FrozenModel:
    """Runs a segmentor's architecture with any weights, in evaluation mode and without gradients.

    One copy of the model, made at the first use, serves the whole run; the
    weights (those of the global model, of a client's last model, …) are used
    in place.

    Args:
        model (nn.Module): An MMSegmentation segmentor.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    @cached_property
    def module(self) -> nn.Module:
        """The copy, of which only the architecture is used: its weights have a shape and take no memory."""
        module = copy.deepcopy(self._model).eval().requires_grad_(False)
        shapes: dict[int, Tensor] = {}  # what is shared stays shared
        for part in module.modules():
            own: dict[str, Tensor | None]
            for own in (part._parameters, part._buffers):  # type: ignore[assignment]
                for name, tensor in own.items():
                    if tensor is not None and name not in part._non_persistent_buffers_set:
                        own[name] = shapes.setdefault(id(tensor), _shape_of(tensor))
        return module

    @cached_property
    def _names(self) -> list[str]:
        """What is to be replaced, each tensor under one of its names (heads may share modules)."""
        named = chain(self.module.named_parameters(), self.module.named_buffers())
        persistent = self.module.state_dict().keys()
        return [name for name, _ in named if name in persistent]

    @cached_property
    def _features(self) -> PixelFeatures:
        return PixelFeatures(self.module)

    @torch.no_grad()
    def __call__(self, weights: Mapping[str, Tensor], images: Tensor) -> PixelMaps:
        """Pixel embeddings and logits of images.

        Args:
            weights (Mapping[str, Tensor]): A state_dict of the model.
            images (Tensor): Normalised images (N, 3, H, W).

        Returns:
            PixelMaps: Its ``embeddings`` (N, D, h, w) and ``logits``
            (N, C, h, w), both at the resolution of the classifier, and its
            ``head_input``.
        """
        with self._features.caught():
            own = {name: weights[name] for name in self._names}
            functional_call(self.module, own, (images, ), dict(mode='tensor'))
            return self._features.take()

    @torch.no_grad()
    def part(self, name: str, weights: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
        """The output of one child of the model, such as a projection head.

        Args:
            name (str): The child.
            weights (Mapping[str, Tensor]): A state_dict of the whole model.
            inputs (Tensor): What goes into the child.
        """
        own = {key[len(name) + 1:]: tensor for key, tensor in weights.items() if key.startswith(f'{name}.')}
        return functional_call(self.module.get_submodule(name), own, inputs)
