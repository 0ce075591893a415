"""The base of aggregators that compare the updates of a round with each other."""
from collections.abc import Collection, Iterator, Mapping

import torch
from mmengine.dist import all_gather, get_world_size
from torch import Tensor

from fedseg_mm.aggregators.aggregator import Aggregator

#: Numbers that are combined at a time, counted over all updates: bounds the memory needed beside the updates.
BLOCK_SIZE = 2**20


class CohortAggregator(Aggregator):
    r"""Keeps every update of a round until :meth:`result`; the base of the robust aggregators.

    A subclass overrides one of two steps: :meth:`combine`, which treats each
    coordinate on its own (a median), or :meth:`shares`, which weighs or
    selects whole updates (by their distances). With neither overridden, the
    result is the weighted mean :math:`\sum_k n_k w_k / \sum_k n_k`.

    Memory: every update is copied, on its own device. A round thus needs the
    memory of the model times the size of the cohort, and where several
    processes train, each of them needs that much. :class:`WeightedMean` and
    :class:`NormClippedMean` hold one set of tensors.

    Integer tensors (BN's ``num_batches_tracked``) stay integer: the greatest
    value among the updates that have a share is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reuse: dict[str, Tensor] = {}
        self._clear()

    def _clear(self) -> None:
        self.total = 0.0
        self._weights: list[float] = []
        self._updates: list[dict[torch.dtype, Tensor]] = []  # of each, one vector per type of number
        self._shapes: dict[str, torch.Size] = {}
        self._names: dict[torch.dtype, list[str]] = {}  # what a vector holds, in order: compared tensors first
        self._num_compared: dict[torch.dtype, int] = {}  # numbers in the compared tensors
        self._reference: Mapping[str, Tensor] | None = None
        self._compared: Collection[str] | None = None

    def begin(self, reference: Mapping[str, Tensor] | None, compared: Collection[str] | None = None) -> None:
        self._reference = reference
        self._compared = None if compared is None else frozenset(compared)

    @torch.no_grad()
    def add(self, tensors: Mapping[str, Tensor], weight: float) -> None:
        """Copy one update."""
        self.check_weight(weight)
        self._lay_out(tensors)
        self.total += weight
        self._weights.append(weight)
        self._updates.append(
            {dtype: torch.cat([tensors[name].reshape(-1) for name in names]) for dtype, names in self._names.items()})

    def _lay_out(self, tensors: Mapping[str, Tensor]) -> None:
        """Fix the order of the names within the vectors: the same in every process, whatever the updates' own order."""
        if self._names:
            return
        self._shapes = {name: tensor.shape for name, tensor in tensors.items()}
        compared = tensors.keys() if self._compared is None else self._compared
        for name in sorted(tensors, key=lambda name: (name not in compared, name)):
            dtype = tensors[name].dtype
            self._names.setdefault(dtype, []).append(name)
            count = tensors[name].numel() if name in compared and dtype.is_floating_point else 0
            self._num_compared[dtype] = self._num_compared.get(dtype, 0) + count

    @torch.no_grad()
    def all_reduce(self, like: Mapping[str, Tensor]) -> None:
        """Give every process the updates of all, in the same order."""
        if get_world_size() == 1:
            return
        self._lay_out(like)
        device = next(iter(like.values())).device
        counts = [int(count) for count in all_gather(torch.tensor([len(self._updates)], device=device))]
        if not any(counts):
            return
        weights = torch.zeros(max(counts), dtype=torch.float64)
        weights[:len(self._weights)] = torch.tensor(self._weights, dtype=torch.float64)
        everywhere = [part.tolist() for part in all_gather(weights.to(device))]
        sizes = {dtype: sum(self._shapes[name].numel() for name in names) for dtype, names in self._names.items()}
        own, self._updates, self._weights = self._updates[::-1], [], []
        for turn in range(max(counts)):  # a process that has run out of updates sends zeros, which are dropped
            update = own.pop() if own else {
                dtype: torch.zeros(size, dtype=dtype, device=device) for dtype, size in sizes.items()}
            gathered = {dtype: all_gather(vector) for dtype, vector in update.items()}
            for rank, count in enumerate(counts):
                if turn < count:
                    self._updates.append({dtype: vectors[rank] for dtype, vectors in gathered.items()})
                    self._weights.append(everywhere[rank][turn])
        self.total = sum(self._weights)

    def shares(self) -> Tensor:
        r"""The share of each update in the result.

        Returns:
            Tensor: At least 0 each, 1 in all; has a shape (n, ) for n updates,
            float64 on the CPU. An update with the share 0 is left out.
            Defaults to :math:`n_k / \sum_j n_j`.
        """
        weights = torch.tensor(self._weights, dtype=torch.float64)
        return weights / weights.sum()

    def combine(self, updates: Tensor, shares: Tensor) -> Tensor:
        """Combine some of the coordinates of the updates that have a share.

        Args:
            updates (Tensor): P coordinates of n updates, floating point; may
                be overwritten; has a shape (n, P).
            shares (Tensor): The updates' shares, of the same type and on the
                same device; has a shape (n, ).

        Returns:
            Tensor: Has a shape (P, ). Defaults to the sum weighted by the
            shares.
        """
        return updates[0] if len(updates) == 1 else updates.mul_(shares.unsqueeze(1)).sum(0)

    @torch.no_grad()
    def gram_matrix(self) -> Tensor:
        r"""Inner products :math:`\langle w_i - r, w_j - r \rangle` of the updates' changes, over the compared tensors.

        They give all distances between updates and weighted sums of updates,
        see :func:`squared_distances`. Because they are sums in float64 of
        differences to the reference r, one huge update does not blur the
        distances between the others.

        Returns:
            Tensor: Has a shape (n, n) for n updates, float64 on the CPU.
        """
        device = next(iter(self._updates[0].values())).device
        products = torch.zeros(len(self._updates), len(self._updates), dtype=torch.float64, device=device)
        for dtype, size in self._num_compared.items():
            reference = None
            if self._reference is not None and size:
                reference = torch.cat([self._reference[name].reshape(-1) for name in self._names[dtype]
                                       if self._compared is None or name in self._compared])
            for part, updates in self._blocks(dtype, size):
                changes = updates.double()
                if reference is not None:
                    changes -= reference[part].double()
                products += changes @ changes.T
        return products.cpu()

    def _blocks(self, dtype: torch.dtype, size: int) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the vectors' first ``size`` numbers, each with the values of all updates there, of shape (n, P)."""
        step = max(BLOCK_SIZE // len(self._updates), 1)
        for start in range(0, size, step):
            part = slice(start, min(start + step, size))
            yield part, torch.stack([update[dtype][part] for update in self._updates])

    def discard(self) -> None:
        self._clear()

    @torch.no_grad()
    def result(self, reuse: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        if not self._updates:
            raise ValueError('no update was added: there is nothing to combine')
        shares = self.shares()
        chosen = shares > 0
        self._updates = [update for update, is_chosen in zip(self._updates, chosen.tolist()) if is_chosen]
        shares = shares[chosen]
        vectors = self._updates[0]  # becomes the result: each part is read before it is overwritten
        for dtype, vector in vectors.items():
            here = shares.to(vector) if dtype.is_floating_point else None
            for part, updates in self._blocks(dtype, len(vector)):
                vector[part] = updates.amax(0) if here is None else self.combine(updates, here)
        parts: dict[str, Tensor] = {}
        for dtype, names in self._names.items():
            pieces = vectors[dtype].split([self._shapes[name].numel() for name in names])
            parts.update((name, piece.view(self._shapes[name])) for name, piece in zip(names, pieces))
        combined = self._reuse or {name: torch.empty_like(parts[name]) for name in self._shapes}
        torch._foreach_copy_([combined[name] for name in parts], list(parts.values()))
        self._clear()
        self._reuse = reuse or {}
        return combined


def squared_distances(gram: Tensor, shares: Tensor | None = None) -> Tensor:
    r"""Squared distances of updates, from their inner products G.

    .. math::
        \lVert w_i - w_j \rVert^2 = G_{ii} - 2 G_{ij} + G_{jj}, \qquad
        \Bigl\lVert w_i - \sum_j \lambda_j w_j \Bigr\rVert^2
        = G_{ii} - 2 (G \lambda)_i + \lambda^\top G \lambda

    Args:
        gram (Tensor): G, see :meth:`CohortAggregator.gram_matrix`; has a shape
            (n, n).
        shares (Tensor, optional): :math:`\lambda`, which sums to 1; has a
            shape (n, ).

    Returns:
        Tensor: Between any two updates, of shape (n, n); with ``shares``,
        between each update and the weighted sum, of shape (n, ).
    """
    squares = gram.diagonal()
    if shares is None:
        return (squares.unsqueeze(1) - 2 * gram + squares).clamp_(min=0)
    products = gram @ shares
    return (squares - 2 * products + shares @ products).clamp_(min=0)
