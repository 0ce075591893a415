"""Shout."""
from collections.abc import Mapping

import torch
from torch import Tensor

from fedseg_mm.attacks.attack import Attack, HonestUpdates
from fedseg_mm.registry import ATTACKS
from fedseg_mm.validation import check_number


@ATTACKS.register_module()
class Scaling(Attack):
    r"""Scaling, as in model replacement (Bagdasaryan et al., AISTATS 2020): :math:`\Delta \leftarrow s \Delta`.

    Args:
        scale (float): :math:`s`, above 0. Defaults to 10.

    Raises:
        FedSegError: ``scale`` is not above 0.
    """

    def __init__(self, scale: float = 10.0) -> None:
        self.scale = check_number('Scaling.scale', scale, above=0)

    def delta(self, delta: dict[str, Tensor], honest: HonestUpdates, cohort: int, hostile: int,
              generator: torch.Generator) -> Mapping[str, Tensor]:
        torch._foreach_mul_(list(delta.values()), self.scale)
        return delta
