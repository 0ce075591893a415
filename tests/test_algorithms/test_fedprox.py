import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from torch import nn

from fedseg_mm import FedSegError
from fedseg_mm.algorithms import FedProx
from fedseg_mm.structures import Broadcast, ClientContext
from tests.conftest import assert_same_bits, tiny_config
from tests.test_engine.test_federated_loop import model_weights, train


def client(model, weights):
    return ClientContext(0, (0, ), 10, Broadcast(0, weights), model, None, None)


def copy_of(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def test_gradient_is_that_of_the_penalised_loss():
    """Of every parameter that the loss reaches, by autograd in float64; one that it does not reach is left alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    model.unused = nn.Parameter(torch.randn(3))
    received = copy_of(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    images, targets = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)

    def loss():
        return (model(images) - targets).square().mean()

    penalty = sum((parameter - received[name]).square().sum() for name, parameter in model.named_parameters()
                  if name != 'unused')
    used = [parameter for name, parameter in model.named_parameters() if name != 'unused']
    expected = torch.autograd.grad(loss() + 0.3 / 2 * penalty, used)
    loss().backward()
    FedProx(mu=0.3).adjust_gradients(client(model, received))
    for parameter, gradient in zip(used, expected):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-14)
    assert model.unused.grad is None


def test_once_per_step_and_after_clipping():
    """Two steps of two accumulated batches each, by hand: mean gradient, clipped to length 0.1, then the penalty."""
    rng = np.random.RandomState(0)
    batches = [(rng.normal(0, 1, (3, 4)), rng.normal(0, 1, 3)) for _ in range(4)]
    mu, lr, w = 0.5, 0.2, rng.normal(0, 1, 4)
    model = nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(w))
    received = {'weight': torch.tensor(rng.normal(0, 1, (1, 4)))}
    context, algorithm = client(model, received), FedProx(mu)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr), accumulative_counts=2,
                           clip_grad=dict(max_norm=0.1))
    wrapper.initialize_count_status(model, 0, 4)
    wrapper.optimizer.register_step_pre_hook(lambda *_: algorithm.adjust_gradients(context))
    for x, y in batches:
        wrapper.update_params((model(torch.tensor(x))[:, 0] - torch.tensor(y)).square().sum() / 2)

    for pair in (batches[:2], batches[2:]):
        gradient = sum(x.T @ (x @ w - y) for x, y in pair) / 2
        length = np.linalg.norm(gradient)
        assert length > 1
        gradient *= 0.1 / (length + 1e-6)
        w = w - lr * (gradient + mu * (w - received['weight'].numpy()[0]))
    np.testing.assert_allclose(model.weight.detach().numpy()[0], w, rtol=1e-12)


class FirstRound(Hook):
    """Keeps what was sent and received in the first round."""

    def __init__(self):
        self.sent = {}

    def before_round(self, runner, cohort, broadcast):
        if runner.epoch == 0:
            self.received = {name: tensor.clone() for name, tensor in broadcast.weights.items()}

    def after_client(self, runner, update):
        if runner.epoch == 0:
            self.sent[update.client] = {name: tensor.clone() for name, tensor in update.weights.items()}


def test_whole_runs(tiny_data, tmp_path):
    """With mu=0 the weights are FedAvg's bit for bit; else a client's second step is shorter by lr * mu * the first."""

    def run(algorithm, rounds, local_epochs):  # a step per epoch
        first = FirstRound()
        runner = train(tiny_config(tiny_data, tmp_path / f'{algorithm} {local_epochs}', **{
            'federated.algorithm': algorithm, 'federated.local_epochs': local_epochs, 'train_cfg.max_rounds': rounds,
            'optim_wrapper.optimizer.momentum': 0.}), first)
        return runner, first

    fedavg, plain = run(dict(type='FedAvg'), 2, 2)
    without, _ = run(dict(type='FedProx', mu=0.), 2, 2)
    assert_same_bits(model_weights(fedavg), model_weights(without))

    mu, lr = 4., 0.05
    _, held = run(dict(type='FedProx', mu=mu), 1, 2)
    _, one_step = run(dict(type='FedAvg'), 1, 1)
    assert held.sent.keys() == one_step.sent.keys() and len(held.sent) == 3
    for client, weights in held.sent.items():
        for name, _ in fedavg.model.named_parameters():
            moved = one_step.sent[client][name] - plain.received[name]
            torch.testing.assert_close(weights[name], plain.sent[client][name] - lr * mu * moved, rtol=0, atol=1e-6)
        name = 'decode_head.conv_seg.weight'
        assert (weights[name] - plain.sent[client][name]).abs().max() > 1e-4


def test_a_negative_factor_is_refused():
    with pytest.raises(FedSegError, match='federated.algorithm.mu must be a number at least 0, but is -1'):
        FedProx(mu=-1)
