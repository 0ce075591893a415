"""Send the opposite."""
from collections.abc import Mapping

import torch
from torch import Tensor

from fedseg_mm.attacks.attack import Attack, HonestUpdates
from fedseg_mm.registry import ATTACKS
from fedseg_mm.validation import check_number


@ATTACKS.register_module()
class SignFlip(Attack):
    r"""Sign flipping (Li et al., "RSA", AAAI 2019): :math:`\Delta \leftarrow -s \Delta`.

    Args:
        scale (float): :math:`s`, above 0. Defaults to 4: with a fifth of such
            clients alike to the others, the mean is near zero.

    Raises:
        FedSegError: ``scale`` is not above 0.
    """

    def __init__(self, scale: float = 4.0) -> None:
        self.scale = check_number('SignFlip.scale', scale, above=0)

    def delta(self, delta: dict[str, Tensor], honest: HonestUpdates, cohort: int, hostile: int,
              generator: torch.Generator) -> Mapping[str, Tensor]:
        torch._foreach_mul_(list(delta.values()), -self.scale)
        return delta
