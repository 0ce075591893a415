"""A second device without one: torch's meta tensors, and a spy that lets the host read of them what a run has to."""
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device('meta')
aten = torch.ops.aten
#: Operations that take tensors of two devices.
COPIES = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default}
#: Operations whose result's size depends on values: (tensor) -> something of the right type and shape.
SIZES = {
    aten.nonzero.default: lambda tensor: tensor.new_empty((3, tensor.ndim), dtype=torch.int64),
    aten._unique2.default: lambda tensor: (
        tensor.new_empty(2), tensor.new_empty(tensor.shape, dtype=torch.int64),
        tensor.new_empty(2, dtype=torch.int64)),
}
#: Ways to make a tensor of the host's numbers, on whichever device.
FROM_NUMBERS = {torch.tensor, torch.as_tensor, torch.Tensor.new_tensor}


class SecondDevice:
    """Stands for a device on which work is queued: tensors are there or on the host, and have no values there.

    Every operation that mixes both is an error. What makes the host wait is
    answered with something of the right shape, and noted in :attr:`waits`:
    reading a number, sizes that depend on values, and copies that do not go
    on while the host does.
    """

    def __init__(self) -> None:
        self.waits: list[str] = []
        #: Operations on the device, and tensors that were sent to it.
        self.operations = self.sent = 0
        self._stack = ExitStack()

    def __enter__(self) -> 'SecondDevice':
        self._stack.enter_context(_Functions(self))
        self._stack.enter_context(_Operations(self))
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    @contextmanager
    def watch(self, found: list[str]) -> Iterator[None]:
        """Add to ``found`` what makes the host wait meanwhile."""
        before = len(self.waits)
        yield
        found += self.waits[before:]


class _Functions(TorchFunctionMode):
    """What is out of the dispatcher's sight: numbers of the host that become a tensor of the device."""

    def __init__(self, device: SecondDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in FROM_NUMBERS and result.is_meta and not (isinstance(args[0], torch.Tensor) and (
                func is not torch.Tensor.new_tensor)):
            self.device.waits.append(f'{func.__name__} of numbers')
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and args[0].is_meta and any(
                isinstance(index, list) for index in (args[1] if isinstance(args[1], tuple) else [args[1]])):
            self.device.waits.append(f'{func.__name__} by a list')
        return result


class _Operations(TorchDispatchMode):

    def __init__(self, device: SecondDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in COPIES:
            return self._copy(func, args, kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in given if tensor.is_meta]
        if not there:
            return func(*args, **kwargs)
        # a number of the host goes along with the launch
        assert not any(not tensor.is_meta and tensor.ndim for tensor in given), (
            f'{func} mixes devices: {[(tuple(tensor.shape), str(tensor.device)) for tensor in given]}')
        self.device.operations += 1
        if func is aten._local_scalar_dense.default:
            self.device.waits.append(str(func))
            return True if there[0].dtype == torch.bool else 1.0 if there[0].is_floating_point() else 1
        if func in SIZES:
            self.device.waits.append(str(func))
            return SIZES[func](args[0])
        if func in (aten.index.Tensor, aten.index_put_.default) and any(
                index is not None and index.dtype == torch.bool for index in args[1]):
            self.device.waits.append(f'{func} by a mask')
            indices = [index if index is None or index.dtype != torch.bool else
                       index.new_zeros(3, dtype=torch.int64).expand(3) for index in args[1]]
            assert all(index is None or index.ndim == 1 for index in args[1]), f'{func} by a mask of several dimensions'
            return func(args[0], indices, *args[2:], **kwargs)
        return func(*args, **kwargs)

    def _copy(self, func, args, kwargs):
        if func is aten._to_copy.default:
            pairs = [(torch.device(kwargs.get('device') or args[0].device), args[0])]
        else:
            pairs = zip(*args[:2]) if func is aten._foreach_copy_.default else [args[:2]]
            pairs = [(target.device, source) for target, source in pairs]
        blocking = not (kwargs.get('non_blocking') or (len(args) > 2 and args[2]))
        for target, source in pairs:
            if target == DEVICE and not source.is_meta and source.ndim:
                self.device.sent += 1
                if blocking:
                    self.device.waits.append(f'{func} to the device, of {tuple(source.shape)}')
            elif target != DEVICE and source.is_meta:
                self.device.waits.append(f'{func} from the device, of {tuple(source.shape)}')
                assert func is aten._to_copy.default, f'{func} from the device'
                return torch.zeros(source.shape, dtype=kwargs.get('dtype') or source.dtype)
        return func(*args, **kwargs)
