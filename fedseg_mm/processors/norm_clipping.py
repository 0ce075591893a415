"""Bound the length of every update."""
import torch
from torch import Tensor

from fedseg_mm.processors.update_processor import ProcessorContext, UpdateProcessor
from fedseg_mm.registry import UPDATE_PROCESSORS
from fedseg_mm.validation import check_number


@UPDATE_PROCESSORS.register_module()
class NormClipping(UpdateProcessor):
    r"""Norm clipping of updates (McMahan et al., ICLR 2018, FlatClip in algorithm 1).

    .. math::
        \Delta \leftarrow \Delta \cdot \min\left(1, \frac{S}{\|\Delta\|_2}\right)

    The length is that of the whole update as one vector: all tensors of the
    delta, the statistics of batch normalisation included. These may be much
    longer than the change of the weights; ``batch_norm='local_statistics'``
    keeps them at the clients. An update that is short enough stays the same
    bit for bit; the length of a clipped one is :math:`S` up to rounding in
    the tensors' own types.

    Metrics: ``clipped_share``, the share of updates that were too long, and
    ``update_norm``, the mean length before clipping.

    Args:
        max_norm (float): :math:`S`, above 0.

    Raises:
        FedSegError: ``max_norm`` is not above 0.
    """

    def __init__(self, max_norm: float) -> None:
        super().__init__()
        self.max_norm = check_number(self._key('max_norm'), max_norm, above=0)
        # kept on the device until they are read
        self._count = 0
        self._clipped: Tensor | float = 0.0
        self._norms: Tensor | float = 0.0

    def at_client(self, delta: dict[str, Tensor], context: ProcessorContext) -> dict[str, Tensor]:
        """Scale the delta in place."""
        if not delta:
            return delta
        # float64: on a CPU, float32's norm of a large tensor is wrong in the fourth digit
        norms = torch._foreach_norm(list(delta.values()), 2, dtype=torch.float64)
        norm = torch.linalg.vector_norm(torch.stack(norms))
        scale = (self.max_norm / norm).clamp(max=1.0)
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in delta.values():
            by_type.setdefault(tensor.dtype, []).append(tensor)
        for dtype, tensors in by_type.items():
            torch._foreach_mul_(tensors, scale.to(dtype))
        self._count += 1
        self._clipped = self._clipped + (norm > self.max_norm)
        self._norms = self._norms + norm
        return delta

    def metrics(self) -> dict[str, float]:
        if not self._count:
            return {}
        clipped, norms = float(self._clipped) / self._count, float(self._norms) / self._count
        self._count, self._clipped, self._norms = 0, 0.0, 0.0
        return dict(clipped_share=clipped, update_norm=norms)
