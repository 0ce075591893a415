"""Clients that send noise."""
import torch
from torch import Tensor

from fedseg_mm.attacks.attack import Attack
from fedseg_mm.registry import ATTACKS
from fedseg_mm.validation import check_number


@ATTACKS.register_module()
class GaussianNoise(Attack):
    r"""Gaussian Byzantine workers (Blanchard et al., NeurIPS 2017, section 6).

    .. math::
        \Delta_k \leftarrow \Delta_k + \mathcal N(0, \sigma^2 I), \qquad
        \sigma = \frac{\lambda \lVert \Delta_k \rVert}{\sqrt d}

    so that the noise on d numbers is :math:`\lambda` times as long as the
    honest change, whatever the model.

    Args:
        ratio (float): :math:`\lambda`, above 0. Defaults to 10.
        kwargs: Who is hostile, see :class:`Attack`.
    """

    def __init__(self, ratio: float = 10.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.ratio = check_number(self._key('ratio'), ratio, above=0)

    def alter(self, change: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        tensors = list(change.values())
        if not tensors:
            return change
        sizes = [tensor.numel() for tensor in tensors]
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float64))).item()
        # drawn on the CPU: the same numbers on every device
        noise = torch.randn(sum(sizes), generator=generator) * (self.ratio * length / sum(sizes) ** 0.5)
        for tensor, part in zip(tensors, noise.split(sizes)):
            tensor.add_(part.view(tensor.shape).to(tensor))
        return change
