"""Updates in 8-bit integers, rounded stochastically."""
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedseg_mm.processors.compression import Compression
from fedseg_mm.processors.update_processor import ProcessorContext
from fedseg_mm.registry import UPDATE_PROCESSORS

#: The greatest level; -128 is not used, so that the levels are symmetric.
LEVELS = 127


@UPDATE_PROCESSORS.register_module()
class Int8Compression(Compression):
    r"""Unbiased quantisation to 8 bits after QSGD (Alistarh et al., NeurIPS 2017, section 3.1).

    .. math::
        q_i = \left\lfloor \frac{x_i}{s} + u_i \right\rfloor, \qquad
        s = \frac{\max_j |x_j|}{127}, \qquad u_i \sim U[0, 1), \qquad
        \mathbb E[s\, q_i] = x_i

    QSGD scales by the length of the vector; here the scale is that of the
    largest entry of each tensor, which makes use of all levels. The error of
    an entry is below :math:`s`, its variance at most :math:`s^2 / 4`. A
    parameter is sent as int8 values and one floating point scale: a quarter
    of float32's bytes.
    """

    def encode(self, name: str, tensor: Tensor, context: ProcessorContext,
               generator: torch.Generator) -> dict[str, Tensor]:
        values = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        scale = torch.linalg.vector_norm(values, math.inf) / LEVELS if values.numel() else values.new_zeros(())
        uniform = torch.rand(values.shape, generator=generator, dtype=values.dtype, device=values.device)
        # an all-zero tensor has scale 0
        levels = values.div(torch.where(scale > 0, scale, 1)).add_(uniform).floor_().clamp_(-LEVELS, LEVELS)
        return dict(values=levels.to(torch.int8), scale=scale)

    def decode(self, parts: Mapping[str, Tensor], like: Tensor) -> Tensor:
        return parts['values'].to(parts['scale'].dtype).mul_(parts['scale']).to(like.dtype)
