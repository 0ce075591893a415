import numpy as np
import pytest
import torch
from torch import nn

from fedseg_mm import FedSegError
from fedseg_mm.algorithms import FedAdam, FedAvgM, FedYogi
from fedseg_mm.structures import ClientUpdate
from tests.conftest import assert_same_bits, tiny_config
from tests.test_engine.test_federated_loop import model_weights, train

RNG = np.random.RandomState(0)
START = RNG.normal(0, 1, (4, 3))
DELTAS = RNG.normal(0, 0.1, (3, 2, 4, 3))  # (round, client, ...)
DELTAS[2] *= 0.01  # squares below the second moment too, where Yogi's sign turns
SIZES = (10, 30)
MEANS = (DELTAS[:, 0] * 10 + DELTAS[:, 1] * 30) / 40


class Model(nn.Module):

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(START))
        self.register_buffer('statistics', torch.zeros(2, dtype=torch.float64))
        self.register_buffer('num_batches_tracked', torch.tensor(0))


def run_rounds(algorithm, model, rounds):
    """Clients move by DELTAS from the global model; yields it after each round."""
    for round in rounds:
        broadcast = algorithm.broadcast(round)
        for k in (0, 1):
            weights = dict(w=broadcast.weights['w'] + torch.tensor(DELTAS[round, k]),
                           statistics=torch.tensor([k, round], dtype=torch.float64),
                           num_batches_tracked=torch.tensor(round + k))
            algorithm.receive(ClientUpdate(k, weights, SIZES[k], 1, {}))
        algorithm.step(model)
        yield model.w.detach().numpy().copy()


def by_torch(make_optimizer):
    parameter = torch.tensor(START, requires_grad=True)
    optimizer = make_optimizer([parameter])
    for mean in MEANS:
        parameter.grad = torch.tensor(-mean)
        optimizer.step()
        yield parameter.detach().numpy().copy()


def yogi(lr, beta1, beta2, tau):
    """Algorithm 2 of Reddi et al., ICLR 2021, with the second moment of FedYogi."""
    x, m, v = START, 0, tau**2
    for mean in MEANS:
        m = beta1 * m + (1 - beta1) * mean
        v = v - (1 - beta2) * mean**2 * np.sign(v - mean**2)
        x = x + lr * m / (np.sqrt(v) + tau)
        yield x


@pytest.mark.parametrize('make, reference', [
    (lambda: FedAvgM(0.5, 0.9), lambda: by_torch(lambda p: torch.optim.SGD(p, 0.5, momentum=0.9))),
    (lambda: FedAdam(0.1, (0.8, 0.95), 0.01),
     lambda: by_torch(lambda p: torch.optim.Adam(p, 0.1, betas=(0.8, 0.95), eps=0.01))),
    (lambda: FedYogi(0.1, (0.8, 0.95), 0.03), lambda: yogi(0.1, 0.8, 0.95, 0.03)),
], ids=['FedAvgM', 'FedAdam', 'FedYogi'])
class TestThreeRounds:

    def test_equal_the_reference(self, make, reference):
        algorithm, model = make(), Model()
        algorithm.start(model)
        for round, (found, expected) in enumerate(zip(run_rounds(algorithm, model, range(3)), reference(),
                                                      strict=True)):
            np.testing.assert_allclose(found, expected, rtol=1e-10)
            assert model.statistics.tolist() == [0.75, round]  # the mean of the clients', no step of an optimizer
            assert model.num_batches_tracked.item() == round + 1

    def test_go_on_after_a_resume(self, make, reference, tmp_path):
        algorithm, model = make(), Model()
        algorithm.start(model)
        whole = list(run_rounds(algorithm, model, range(3)))

        algorithm, model = make(), Model()
        algorithm.start(model)
        list(run_rounds(algorithm, model, range(2)))
        torch.save(algorithm.state_dict(), tmp_path / 'state.pth')
        algorithm = make()
        algorithm.start(model)
        algorithm.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
        last, = run_rounds(algorithm, model, [2])
        assert np.array_equal(last, whole[2])


def test_reference_of_yogi_sees_both_signs():
    """Squares of the deltas above and below the second moment."""
    v, signs = 0.03**2, []
    for mean in MEANS:
        signs.append(np.sign(v - mean**2))
        v = v - 0.05 * mean**2 * signs[-1]
    assert {-1, 1} == set(np.unique(signs))


def test_without_momentum_it_is_fedavg_bit_for_bit(tiny_data, tmp_path):
    changes = {'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 9}
    fedavg, other = (
        train(tiny_config(tiny_data, tmp_path / algorithm['type'], **{'federated.algorithm': algorithm, **changes}))
        for algorithm in (dict(type='FedAvg'), dict(type='FedAvgM', server_lr=1., momentum=0.)))
    assert_same_bits(model_weights(fedavg), model_weights(other))


@pytest.mark.parametrize('arguments, sentence', [
    (dict(server_lr=0), 'server_lr must be a number above 0'), (dict(betas=(0.9, 1.0)), 'betas.1 must be .* below 1'),
    (dict(tau=0), 'tau must be a number above 0')])
def test_numbers_out_of_range_are_refused(arguments, sentence):
    with pytest.raises(FedSegError, match=f'federated.algorithm.{sentence}'):
        FedYogi(**arguments)
