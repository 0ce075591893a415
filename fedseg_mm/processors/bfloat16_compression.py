"""Updates in bfloat16."""
from collections.abc import Mapping

import torch
from torch import Tensor

from fedseg_mm.processors.compression import Compression
from fedseg_mm.processors.update_processor import ProcessorContext
from fedseg_mm.registry import UPDATE_PROCESSORS


@UPDATE_PROCESSORS.register_module()
class BFloat16Compression(Compression):
    """Sends the change of every parameter in bfloat16: half the bytes of float32.

    Its range is float32's; an entry is rounded to the nearest number of 8
    significant bits, a relative error of at most 2^-8. Tensors of 16 bits are
    sent as they are, because nothing would be saved.
    """

    def encode(self, name: str, tensor: Tensor, context: ProcessorContext,
               generator: torch.Generator) -> dict[str, Tensor]:
        return dict(values=tensor.to(torch.bfloat16) if tensor.element_size() > 2 else tensor)

    def decode(self, parts: Mapping[str, Tensor], like: Tensor) -> Tensor:
        return parts['values'].to(like.dtype)
