"""Send noise."""
from collections.abc import Mapping

import torch
from torch import Tensor

from fedseg_mm.attacks.attack import Attack, HonestUpdates
from fedseg_mm.registry import ATTACKS
from fedseg_mm.validation import check_number


@ATTACKS.register_module()
class GaussianNoise(Attack):
    r"""Gaussian noise instead of an update (Blanchard et al., NeurIPS 2017, section 5).

    .. math::
        \Delta \leftarrow \mathcal N(0, (s r)^2 I), \qquad r^2 = \frac{1}{d} \|\Delta\|_2^2

    The noise is thus :math:`s` times as long as the client's own update.

    Args:
        scale (float): :math:`s`, above 0. Defaults to 4.

    Raises:
        FedSegError: ``scale`` is not above 0.
    """

    def __init__(self, scale: float = 4.0) -> None:
        self.scale = check_number('GaussianNoise.scale', scale, above=0)

    def delta(self, delta: dict[str, Tensor], honest: HonestUpdates, cohort: int, hostile: int,
              generator: torch.Generator) -> Mapping[str, Tensor]:
        tensors = list(delta.values())
        sizes = [tensor.numel() for tensor in tensors]
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float64)))
        noise = torch.randn(sum(sizes), generator=generator).to(tensors[0].device)
        noise *= self.scale * length / sum(sizes)**0.5
        return {name: part.view(tensor.shape).to(tensor.dtype)
                for (name, tensor), part in zip(delta.items(), noise.split(sizes))}
