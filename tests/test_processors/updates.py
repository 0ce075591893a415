"""Updates and contexts for the tests of processors."""
import torch

from fedseg_mm.processors import ProcessorContext

#: Shapes that occur in models, and those that are easily forgotten.
SHAPES = {
    'backbone.conv.weight': (8, 3, 3, 3), 'head.bias': (5,), 'head.one': (1,), 'head.scale': (), 'head.none': (0,)
}


def update(seed=0, dtype=torch.float32, length=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {name: (length * torch.randn(shape, generator=generator)).to(dtype) for name, shape in SHAPES.items()}


def context(trained=tuple(SHAPES), seed=3, round=0, client=0, weight=1.0, state=None):
    return ProcessorContext(seed, round, client, frozenset(trained), weight, {} if state is None else state)


def clone(tensors):
    return {name: tensor.clone() for name, tensor in tensors.items()}


def flat(tensors):
    """All entries in float64, as one numpy vector."""
    return torch.cat([tensor.double().flatten() for tensor in tensors.values()]).numpy()


def equal(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)
