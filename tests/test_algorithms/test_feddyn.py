import numpy as np
import pytest
import torch

from fedseg_mm import FedSegError
from fedseg_mm.algorithms import FedDyn
from tests.test_algorithms.quadratics import COHORTS, LR, START, STEPS, Quadratic, gradient, run_round, start


def by_the_paper(alpha, momentum):
    """Algorithm 1 of Acar et al., ICLR 2021, its arg min by SGD; yields server and client state after each round."""
    theta, h, last_gradient = START, np.zeros(3), np.zeros((4, 3))
    for cohort in COHORTS:
        thetas = []
        for k in cohort:
            local, velocity = theta, 0
            for _ in range(STEPS):
                velocity = momentum * velocity + gradient(k, local) - last_gradient[k] + alpha * (local - theta)
                local = local - LR * velocity
            last_gradient[k] -= alpha * (local - theta)
            thetas.append(local)
        h = h - alpha / 4 * sum(local - theta for local in thetas)
        theta = sum(thetas) / len(cohort) - h / alpha
        yield theta, h, last_gradient.copy()


@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize('alpha', [0.1, 1.0])
def test_three_rounds_equal_the_papers_algorithm(alpha, momentum):
    algorithm, model, states = FedDyn(alpha), Quadratic(), {}
    start(algorithm, model)
    for round, (theta, h, last_gradient) in enumerate(by_the_paper(alpha, momentum)):
        run_round(algorithm, model, states, round, momentum)
        np.testing.assert_allclose(model.w.detach().numpy(), theta, rtol=1e-10)
        np.testing.assert_allclose(algorithm.state_dict()['drift']['w'].numpy(), h, rtol=1e-10)
        for client, state in states.items():
            assert state.keys() == {'w'}
            np.testing.assert_allclose(state['w'].numpy(), last_gradient[client], rtol=1e-10)
        # what is not trained by gradients is the cohort's plain mean, whatever the clients' sizes
        assert model.client.item() == pytest.approx(np.mean(COHORTS[round]))
        assert model.fixed.tolist() == [1, 1]


def test_server_state_survives(tmp_path):
    results = []
    for interrupted in (False, True):
        algorithm, model, states = FedDyn(0.1), Quadratic(), {}
        start(algorithm, model)
        for round in range(3):
            if interrupted and round == 2:
                torch.save(algorithm.state_dict(), tmp_path / 'state.pth')
                algorithm = FedDyn(0.1)
                start(algorithm, model)
                algorithm.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
            run_round(algorithm, model, states, round)
        results.append(model.w.detach().clone())
    assert torch.equal(*results)


def test_alpha_of_zero_is_refused():
    for alpha in (0, -1, float('nan')):
        with pytest.raises(FedSegError, match='federated.algorithm.alpha must be a number above 0'):
            FedDyn(alpha)
