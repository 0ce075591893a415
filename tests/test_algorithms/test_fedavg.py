import torch
from torch import nn

from fedseg_mm.algorithms import FedAvg
from fedseg_mm.algorithms.fedavg import copy_tensors, load_weights
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.structures import ClientUpdate


def update(client, images, **weights):
    return ClientUpdate(client, weights, images, num_steps=1, metrics=dict(loss=0.0))


def test_one_round_by_hand():
    model = nn.Linear(1, 1)
    algorithm = ALGORITHMS.build(dict(type='FedAvg'))
    with torch.no_grad():
        model.weight.fill_(5)
        model.bias.fill_(7)
    algorithm.start(model)
    broadcast = algorithm.broadcast(3)
    assert broadcast.round == 3 and broadcast.num_bytes == 8
    assert broadcast.weights['weight'].item() == 5 and broadcast.weights['bias'].item() == 7
    algorithm.receive(update(0, 10, weight=torch.tensor([[1.]]), bias=torch.tensor([0.])))
    algorithm.receive(update(1, 30, weight=torch.tensor([[5.]]), bias=torch.tensor([2.])))
    algorithm.step(model)
    assert model.weight.item() == 4 and model.bias.item() == 1.5
    assert algorithm.broadcast(4).weights['weight'].item() == 4


def test_weights_are_copied_in_a_pass_per_type_of_number(monkeypatch):
    """A GPU copies a list of one type in one launch, and a mixed one tensor by tensor."""
    targets = [torch.zeros(2), torch.zeros(1, dtype=torch.long), torch.zeros(3), torch.zeros(2, dtype=torch.long)]
    sources = [torch.ones(2), torch.tensor([7]), torch.full((3, ), 2.5), torch.tensor([8, 9])]
    passes, copy = [], torch._foreach_copy_
    monkeypatch.setattr(torch, '_foreach_copy_', lambda into, of: passes.append(len(into)) or copy(into, of))
    copy_tensors(zip(targets, sources))
    assert all(map(torch.equal, targets, sources)) and passes == [2, 2]
    passes.clear()
    model, other = (nn.BatchNorm2d(3) for _ in range(2))
    other.num_batches_tracked.fill_(5)
    load_weights(model, other.state_dict())
    assert model.num_batches_tracked == 5 and passes == [4, 1]


def test_global_model_is_apart_from_the_one_that_trains():
    model = nn.Linear(1, 1)
    algorithm = FedAvg()
    algorithm.start(model)
    before = algorithm.broadcast(0).weights['weight'].clone()
    with torch.no_grad():
        model.weight.add_(1)
    assert torch.equal(algorithm.broadcast(0).weights['weight'], before)
