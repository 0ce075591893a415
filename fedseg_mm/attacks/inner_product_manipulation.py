"""Point slightly the wrong way."""
from collections.abc import Mapping

import torch
from torch import Tensor

from fedseg_mm.attacks.attack import Attack, HonestUpdates
from fedseg_mm.registry import ATTACKS
from fedseg_mm.validation import check_number


@ATTACKS.register_module()
class InnerProductManipulation(Attack):
    r"""Inner-product manipulation (Xie et al., "Fall of Empires", UAI 2020), with the honest updates known.

    .. math::
        \Delta = -\epsilon \, \mu

    with :math:`\mu` the mean of the honest updates. A small :math:`\epsilon`
    keeps near the honest updates and pulls against them; with a large one the
    mean itself turns around.

    Args:
        epsilon (float): :math:`\epsilon`, above 0. Defaults to 0.5.

    Raises:
        FedSegError: ``epsilon`` is not above 0.
    """

    needs_honest = True

    def __init__(self, epsilon: float = 0.5) -> None:
        self.epsilon = check_number('InnerProductManipulation.epsilon', epsilon, above=0)

    def delta(self, delta: dict[str, Tensor], honest: HonestUpdates, cohort: int, hostile: int,
              generator: torch.Generator) -> Mapping[str, Tensor]:
        if not honest.count:
            return delta
        mean = honest.mean()
        return {name: (-self.epsilon * mean[name]).to(tensor.dtype) for name, tensor in delta.items()}
