"""The default aggregator: a weighted mean, folded as updates arrive."""
from collections.abc import Mapping

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from fedseg_mm.aggregators.aggregator import Aggregator
from fedseg_mm.registry import AGGREGATORS


@AGGREGATORS.register_module()
class WeightedMean(Aggregator):
    r"""Running mean :math:`\sum_k n_k w_k / \sum_k n_k` of state_dicts.

    One set of tensors is held, however many updates come. Each update moves
    the mean towards it by its share of the weight so far,
    :math:`m \leftarrow m + (w_k - m)\, n_k / \sum_{j \le k} n_j`, one fused
    pass. The first update is copied: the mean of one is that one, bit for bit.

    Floating point tensors are averaged, buffers (BN statistics) included.
    Integer tensors (BN's ``num_batches_tracked``) stay integer: the greatest
    value is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, tensors: Mapping[str, Tensor], weight: float) -> None:
        """Fold one update into the mean; the weight is :math:`n_k`."""
        self.check_weight(weight)
        if not tensors:  # nothing is shared
            self.total += weight
            return
        if not self._mean:
            self._mean = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
        self.total += weight
        share = weight / self.total
        floating = [name for name, tensor in self._mean.items() if tensor.is_floating_point()]
        if floating:
            self.fold(floating, tensors, share)
        for name in self._mean.keys() - set(floating):
            if share == 1:
                self._mean[name].copy_(tensors[name])
            else:
                torch.maximum(self._mean[name], tensors[name], out=self._mean[name])

    def fold(self, names: list[str], tensors: Mapping[str, Tensor], share: float) -> None:
        """Move the mean towards one update, in place.

        Args:
            names (list[str]): Names of the floating point tensors.
            tensors (Mapping[str, Tensor]): The update.
            share (float): Its share of the weight so far; 1 for the first
                update, before which the mean holds nothing of use.
        """
        mean, update = [self._mean[name] for name in names], [tensors[name] for name in names]
        if share == 1:
            torch._foreach_copy_(mean, update)
        else:
            torch._foreach_lerp_(mean, update, share)

    @torch.no_grad()
    def all_reduce(self, like: Mapping[str, Tensor]) -> None:
        """Make one mean of those of all processes.

        One sum over the processes per type of number. Each weighs its mean by
        its share of the weight first, so that the mean of a single update
        stays that update bit for bit.
        """
        if get_world_size() == 1 or not like:
            return
        device = next(iter(like.values())).device
        total = torch.tensor(self.total, dtype=torch.float64, device=device)
        all_reduce(total)
        share, everywhere = self.total / max(total.item(), 1e-300), total.item()
        if not self.total:
            self._mean = {name: torch.zeros_like(tensor) for name, tensor in like.items()}
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in self._mean.values():
            by_type.setdefault(tensor.dtype, []).append(tensor)
        for dtype, tensors in by_type.items():
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            if dtype.is_floating_point:
                all_reduce(flat.mul_(share))
            else:
                all_reduce(flat, 'max')
            parts = flat.split([tensor.numel() for tensor in tensors])
            torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors)])
        self.total = everywhere

    def discard(self) -> None:
        self.total = 0.0  # the first update of the next round is copied over what the mean holds

    def result(self, reuse: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        if self.total == 0:
            raise ValueError('no update was added: there is no mean')
        mean, self._mean, self.total = self._mean, reuse or {}, 0.0
        return mean
