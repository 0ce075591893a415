"""Only the largest entries of updates, with error feedback."""
from collections.abc import Mapping

import torch
from torch import Tensor

from fedseg_mm.errors import FedSegError
from fedseg_mm.processors.compression import Compression
from fedseg_mm.processors.update_processor import ProcessorContext
from fedseg_mm.registry import UPDATE_PROCESSORS
from fedseg_mm.validation import check_number


@UPDATE_PROCESSORS.register_module()
class TopKCompression(Compression):
    r"""Sparsification with memory (Stich et al., NeurIPS 2018, algorithm 1).

    .. math::
        g_t = \mathrm{top}_k(m_t + \Delta_t), \qquad m_{t+1} = m_t + \Delta_t - g_t

    A client sends the entries :math:`g_t` of greatest magnitude and remembers
    the rest, :math:`m`, for the next round in which it takes part. Nothing is
    lost: what it has sent and what it remembers add up to all of its changes.
    The memory is kept on disk, as large as the model's parameters.

    The k entries are chosen in each tensor, at least one, rather than among
    all parameters together. The sizes of changes differ by orders of magnitude
    from layer to layer: a common threshold would leave whole layers without an
    update. Nor is a copy of the model as one vector needed.

    A parameter is sent as values and their positions in the flattened tensor
    (int32): 8 bytes per entry instead of float32's 4, so that a ratio of 0.01
    costs 2 % of the bytes, and one above 0.5 more than it saves.

    With a ratio below 0.5, most clients send nothing for a coordinate:
    :class:`CoordinateMedian` would then change nothing, and is refused, as is
    :class:`TrimmedMean`.

    Args:
        ratio (float): Share of the entries to send, above 0 and at most 1.
        error_feedback (bool): Keep the memory :math:`m`; False drops what is
            not sent. Defaults to True.

    Raises:
        FedSegError: An argument is not as described.
    """

    def __init__(self, ratio: float, error_feedback: bool = True) -> None:
        super().__init__()
        self.ratio = check_number(self._key('ratio'), ratio, above=0, most=1)
        if not isinstance(error_feedback, bool):
            raise FedSegError(f'{self._key("error_feedback")} must be True or False, but is {error_feedback!r}')
        self.error_feedback = error_feedback
        self.is_sparse = self.ratio < 0.5

    def encode(self, name: str, tensor: Tensor, context: ProcessorContext,
               generator: torch.Generator) -> dict[str, Tensor]:
        if not self.error_feedback:
            indices, values = self._largest(tensor.flatten())
            return dict(values=values, indices=indices.int())
        # at least float32: small changes must add up in the memory
        memory = tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True).flatten()
        if name in context.state:
            memory += context.state[name].flatten()
        indices, values = self._largest(memory)
        values = values.to(tensor.dtype)
        memory[indices] -= values
        context.state[name] = memory.view(tensor.shape)
        return dict(values=values, indices=indices.int())

    def decode(self, parts: Mapping[str, Tensor], like: Tensor) -> Tensor:
        values = parts['values'].to(like.dtype)
        return values.new_zeros(like.numel()).scatter_(0, parts['indices'].long(), values).view(like.shape)

    def _largest(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Positions and values of the entries that are sent."""
        number = min(max(round(self.ratio * flat.numel()), 1), flat.numel())
        indices = flat.abs().topk(number, sorted=False).indices
        return indices, flat[indices]
