"""A weighted mean of updates of limited length."""
import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from fedseg_mm.aggregators.weighted_mean import WeightedMean
from fedseg_mm.registry import AGGREGATORS
from fedseg_mm.validation import check_number


@AGGREGATORS.register_module()
class NormClippedMean(WeightedMean):
    r"""Norm clipping (Sun et al., "Can you really backdoor federated learning?", 2019, section 4).

    .. math::
        m = r + \frac{\sum_k n_k s_k (w_k - r)}{\sum_k n_k}, \qquad
        s_k = \min\Bigl(1, \frac{M}{\lVert w_k - r \rVert}\Bigr)

    with r the global model that every client was given, or zero where updates
    are changes already. The length is measured over the trained weights; the
    factor applies to all floating point tensors, statistics of batch
    normalisation included. This bounds what each client can change in a round;
    it does not tell malicious clients from honest ones. A change so long that
    its length overflows counts as no change.

    Memory: updates are folded in as they arrive, so only one set of tensors
    is held, and a second one while a length is measured.

    Args:
        max_norm (float): M, the greatest length of an update's change, above
            0.

    Raises:
        FedSegError: ``max_norm`` is not such a number.
    """

    def __init__(self, max_norm: float) -> None:
        super().__init__()
        self.max_norm = check_number('federated.aggregator.max_norm', max_norm, above=0)
        self._reference: Mapping[str, Tensor] | None = None
        self._compared: Collection[str] | None = None

    def begin(self, reference: Mapping[str, Tensor] | None, compared: Collection[str] | None = None) -> None:
        self._reference = reference
        self._compared = None if compared is None else frozenset(compared)

    def fold(self, names: list[str], tensors: Mapping[str, Tensor], share: float) -> None:
        length = self._length(names, tensors)
        if length <= self.max_norm:
            super().fold(names, tensors, share)
            return
        # two steps, to the reference and to the update, so that the clipped update is never held
        mean, kept = [self._mean[name] for name in names], share * self.max_norm / length
        back = (share - kept) / (1 - kept)
        start = None if self._reference is None else [self._reference[name] for name in names]
        if share == 1:
            torch._foreach_zero_(mean)  # whatever it held, NaN included
        if start is None:
            torch._foreach_mul_(mean, 1 - back)
        else:
            torch._foreach_lerp_(mean, start, back)
        if kept:
            torch._foreach_lerp_(mean, [tensors[name] for name in names], kept)

    def _length(self, names: list[str], tensors: Mapping[str, Tensor]) -> float:
        """How far an update has moved from the reference, over the compared tensors."""
        names = [name for name in names if self._compared is None or name in self._compared]
        if not names:
            return 0.0
        change = [tensors[name] for name in names]
        if self._reference is not None:
            change = list(torch._foreach_sub(change, [self._reference[name] for name in names]))
        return math.hypot(*torch.stack(torch._foreach_norm(change)).tolist())

    def result(self, reuse: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        mean = super().result(reuse)
        self._reference = self._compared = None
        return mean
