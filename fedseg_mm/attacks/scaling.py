"""Clients that overstate what they learned."""
import torch
from torch import Tensor

from fedseg_mm.attacks.attack import Attack
from fedseg_mm.registry import ATTACKS
from fedseg_mm.validation import check_number


@ATTACKS.register_module()
class Scaling(Attack):
    r"""Scaling, as in model replacement (Bagdasaryan et al., AISTATS 2020, equation 3).

    .. math::
        \Delta_k \leftarrow \lambda \Delta_k

    Args:
        scale (float): :math:`\lambda`, above 0. Defaults to 10.
        kwargs: Who is hostile, see :class:`Attack`.
    """

    def __init__(self, scale: float = 10.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.scale = check_number(self._key('scale'), scale, above=0)

    def alter(self, change: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        torch._foreach_mul_(list(change.values()), self.scale)
        return change
