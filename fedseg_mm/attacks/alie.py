"""Stay within the honest updates' spread."""
from collections.abc import Mapping
from statistics import NormalDist

import torch
from torch import Tensor

from fedseg_mm.attacks.attack import Attack, HonestUpdates
from fedseg_mm.registry import ATTACKS
from fedseg_mm.validation import check_number


@ATTACKS.register_module()
class ALIE(Attack):
    r"""A Little Is Enough (Baruch et al., NeurIPS 2019, algorithm 3), with the honest updates known.

    With mean :math:`\mu` and standard deviation :math:`\sigma` of each number
    over the honest updates, all hostile clients send

    .. math::
        \Delta = \mu - z \sigma, \qquad z = \Phi^{-1}\left(\frac{n - m - s}{n - m}\right), \qquad
        s = \left\lfloor \frac{n}{2} + 1 \right\rfloor - m

    for a cohort of n clients of which m are hostile: as far off as lets them
    pass for a majority's.

    Args:
        z (float, optional): :math:`z`, at least 0. Defaults to None: as above.

    Raises:
        FedSegError: ``z`` is negative.
    """

    needs_honest = True

    def __init__(self, z: float | None = None) -> None:
        self.z = None if z is None else check_number('ALIE.z', z, least=0)

    def delta(self, delta: dict[str, Tensor], honest: HonestUpdates, cohort: int, hostile: int,
              generator: torch.Generator) -> Mapping[str, Tensor]:
        if not honest.count:
            return delta
        z = self.z if self.z is not None else self.largest_z(cohort, hostile)
        mean, std = honest.mean(), honest.std()
        return {name: (mean[name] - z * std[name]).to(tensor.dtype) for name, tensor in delta.items()}

    @staticmethod
    def largest_z(cohort: int, hostile: int) -> float:
        """The paper's z; 0 where hostile clients are too few for it, and that of 99 % where they are the majority."""
        supporters = cohort // 2 + 1 - hostile
        share = (cohort - hostile - supporters) / (cohort - hostile)
        return max(0.0, NormalDist().inv_cdf(min(max(share, 0.5), 0.99)))
