import numpy as np
import pytest
import torch

from fedseg_mm.algorithms import SCAFFOLD
from tests.test_algorithms.quadratics import COHORTS, LR, START, STEPS, Quadratic, gradient, run_round, start


def by_the_paper(server_lr, momentum):
    """Algorithm 1 of Karimireddy et al., ICML 2020; yields the server's state and the clients' after each round.

    Without momentum, with the paper's option II for the control variates;
    with it, where that is wrong, with the mean raw gradient.
    """
    x, c, own = START, np.zeros(3), np.zeros((4, 3))
    for cohort in COHORTS:
        moved, change = [], []
        for k in cohort:
            y, velocity, gradients = x, 0, []
            for _ in range(STEPS):
                gradients.append(gradient(k, y))
                velocity = momentum * velocity + gradients[-1] - own[k] + c
                y = y - LR * velocity
            new = np.mean(gradients, 0) if momentum else own[k] - c + (x - y) / (STEPS * LR)
            moved.append(y - x)
            change.append(new - own[k])
            own[k] = new
        x = x + server_lr * np.mean(moved, 0)
        c = c + len(cohort) / 4 * np.mean(change, 0)
        yield x, c, own.copy()


@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize('server_lr', [1.0, 0.5])
def test_three_rounds_equal_the_papers_algorithm(server_lr, momentum):
    algorithm, model, states = SCAFFOLD(server_lr), Quadratic(), {}
    start(algorithm, model)
    for round, (x, c, own) in enumerate(by_the_paper(server_lr, momentum)):
        run_round(algorithm, model, states, round, momentum)
        np.testing.assert_allclose(model.w.detach().numpy(), x, rtol=1e-10)
        np.testing.assert_allclose(algorithm.state_dict()['control']['w'].numpy(), c, rtol=1e-10)
        for client, state in states.items():
            assert state.keys() == {'w'}
            np.testing.assert_allclose(state['w'].numpy(), own[client], rtol=1e-10)
        # buffers are the cohort's plain mean, whatever the clients' sizes and the server's rate
        assert model.client.item() == pytest.approx(np.mean(COHORTS[round]))
        assert model.fixed.tolist() == [1, 1]


def test_messages_hold_the_control_variates():
    algorithm, model = SCAFFOLD(), Quadratic()
    start(algorithm, model)
    weights = 8 * (3 + 1 + 2)
    assert algorithm.broadcast(0).num_bytes == weights + 8 * 3


def test_server_state_survives(tmp_path):
    results = []
    for interrupted in (False, True):
        algorithm, model, states = SCAFFOLD(), Quadratic(), {}
        start(algorithm, model)
        for round in range(3):
            if interrupted and round == 2:
                torch.save(algorithm.state_dict(), tmp_path / 'state.pth')
                algorithm = SCAFFOLD()
                start(algorithm, model)
                algorithm.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
            run_round(algorithm, model, states, round)
        results.append(model.w.detach().clone())
    assert torch.equal(*results)
