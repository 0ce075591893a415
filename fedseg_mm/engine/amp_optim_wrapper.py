"""Mixed precision whose resizes keep their gradients."""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

#: Modes of interpolation whose backward pass adds many gradients into one place.
SUMMING = ('linear', 'bilinear', 'bicubic', 'trilinear')


class Float32Resizes(TorchFunctionMode):
    """Within it, interpolation in half precision is done in float32.

    Its backward pass on CUDA adds in the precision of its input: of the
    gradients that an eightfold, sixteenfold or larger resize adds into one
    pixel, bfloat16 then loses a part, the more the larger the resize. PyTorch
    lists interpolation among the operations for float32 on a CPU, but not on
    CUDA.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is F.interpolate:
            names = ('input', 'size', 'scale_factor', 'mode')
            given = {**dict(zip(names, args)), **kwargs}
            if given.get('mode', 'nearest') in SUMMING and given['input'].dtype in (torch.float16, torch.bfloat16):
                if args:
                    args = (args[0].float(), *args[1:])
                else:
                    kwargs['input'] = kwargs['input'].float()
        return func(*args, **kwargs)


@OPTIM_WRAPPERS.register_module()
class Float32ResizeAmpOptimWrapper(AmpOptimWrapper):
    """MMEngine's mixed precision, with resizes in float32; what ``--amp`` takes.

    Args:
        **kwargs: As for MMEngine's AmpOptimWrapper.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, but for resizes."""
        with super().optim_context(model), Float32Resizes():
            yield
