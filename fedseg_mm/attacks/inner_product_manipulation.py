"""Colluding clients that turn the mean against the honest ones."""
import torch
from torch import Tensor

from fedseg_mm.attacks.attack import Attack, HonestUpdates
from fedseg_mm.registry import ATTACKS
from fedseg_mm.validation import check_number


@ATTACKS.register_module()
class InnerProductManipulation(Attack):
    r"""Inner-product manipulation (Xie et al., "Fall of Empires", UAI 2020, section 4).

    .. math::
        \Delta_k \leftarrow -\epsilon \, \frac 1{|H|} \sum_{j \in H} \Delta_j

    with H the honest clients of the round. A small :math:`\epsilon` hides
    among short updates, a large one turns the mean around.

    Args:
        epsilon (float): :math:`\epsilon`, above 0. Defaults to 0.5.
        kwargs: Who is hostile, see :class:`Attack`.
    """

    colludes = True

    def __init__(self, epsilon: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        self.epsilon = check_number(self._key('epsilon'), epsilon, above=0)

    def craft(self, honest: HonestUpdates) -> dict[str, Tensor]:
        return dict(zip(honest.mean, torch._foreach_mul(list(honest.mean.values()), -self.epsilon)))
