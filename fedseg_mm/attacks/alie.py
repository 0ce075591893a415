"""Colluding clients that stay within the spread of the honest ones."""
from statistics import NormalDist

import torch
from torch import Tensor

from fedseg_mm.attacks.attack import Attack, HonestUpdates
from fedseg_mm.registry import ATTACKS
from fedseg_mm.validation import check_number


@ATTACKS.register_module()
class ALIE(Attack):
    r"""A Little Is Enough (Baruch et al., NeurIPS 2019, algorithm 3).

    .. math::
        \Delta_k \leftarrow \mu - z \sigma, \qquad
        z = \Phi^{-1}\Bigl(\frac{n - m - s}{n - m}\Bigr), \qquad
        s = \Bigl\lfloor \frac n2 + 1 \Bigr\rfloor - m

    with mean :math:`\mu` and standard deviation :math:`\sigma` of each
    coordinate, n updates of which m are hostile, and s the honest ones that
    the attackers need on their side for a majority. The paper estimates both
    from the attackers' own updates; here they know those of the honest
    clients, which is the stronger attack. In small cohorts the equation gives
    a z near zero; it is never taken below zero.

    Args:
        z (float, optional): z, at least 0. Defaults to None: by the equation.
        kwargs: Who is hostile, see :class:`Attack`.
    """

    colludes = True

    def __init__(self, z: float | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.z = z if z is None else check_number(self._key('z'), z, least=0)

    def deviations(self, honest: HonestUpdates) -> float:
        """z of a round."""
        if self.z is not None:
            return self.z
        total = honest.number + honest.num_hostile
        needed = total // 2 + 1 - honest.num_hostile
        share = (honest.number - needed) / max(honest.number, 1)
        return max(NormalDist().inv_cdf(share), 0.0) if 0 < share < 1 else 0.0

    def craft(self, honest: HonestUpdates) -> dict[str, Tensor]:
        return dict(zip(honest.mean, torch._foreach_add(
            list(honest.mean.values()), [honest.std[name] for name in honest.mean], alpha=-self.deviations(honest))))
