"""Clients that send the opposite of what they learned."""
import torch
from torch import Tensor

from fedseg_mm.attacks.attack import Attack
from fedseg_mm.registry import ATTACKS
from fedseg_mm.validation import check_number


@ATTACKS.register_module()
class SignFlip(Attack):
    r"""Sign flipping (Li et al., "RSA", AAAI 2019, section 5).

    .. math::
        \Delta_k \leftarrow -\lambda \Delta_k

    Where a share h of equal clients does so, their mean goes backwards from
    :math:`\lambda > (1 - h) / h` on.

    Args:
        scale (float): :math:`\lambda`, above 0. Defaults to 1.
        kwargs: Who is hostile, see :class:`Attack`.
    """

    def __init__(self, scale: float = 1.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.scale = check_number(self._key('scale'), scale, above=0)

    def alter(self, change: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        torch._foreach_mul_(list(change.values()), -self.scale)
        return change
