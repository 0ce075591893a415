"""A federation whose clients hold quadratics: f_k(w) = (w - b_k)' A_k (w - b_k) / 2, in float64."""
import numpy as np
import torch
from torch import nn

from fedseg_mm.structures import ClientContext, ClientUpdate, FederationInfo

COHORTS = [(0, 2), (2, 1), (3, 0, 2)]
SIZES = (3, 40, 11, 7)  # images
STEPS, LR = 5, 0.05
_rng = np.random.RandomState(0)
A = np.array([m @ m.T + np.eye(3) for m in _rng.normal(0, 1, (4, 3, 3))])
B = _rng.normal(0, 2, (4, 3))
START = _rng.normal(0, 1, 3)


class Quadratic(nn.Module):
    """One vector, and a buffer that training sets to the client's id."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(START))
        self.register_buffer('client', torch.zeros((), dtype=torch.float64))
        self.fixed = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)

    def loss(self, client):
        self.client.fill_(client)
        distance = self.w - torch.tensor(B[client])
        return distance @ torch.tensor(A[client]) @ distance / 2


def gradient(client: int, w: np.ndarray) -> np.ndarray:
    return A[client] @ (w - B[client])


def start(algorithm, model):
    algorithm.setup(model, FederationInfo(num_clients=4, num_classes=2, seed=0))
    algorithm.start(model)


def run_round(algorithm, model, states: dict, round: int, momentum: float = 0.0) -> None:
    """One round as the engine runs it: torch's SGD at each client, the method as a pre-hook of its step.

    Args:
        states (dict): What each client keeps, by id; renewed.
    """
    broadcast = algorithm.broadcast(round)
    for client in COHORTS[round]:
        model.load_state_dict(broadcast.weights)
        context = ClientContext(client, (0, ), SIZES[client], broadcast, model, None, None,
                                state=states.get(client, {}))
        optimizer = torch.optim.SGD([model.w], LR, momentum)
        optimizer.register_step_pre_hook(lambda *_, context=context: algorithm.adjust_gradients(context))
        algorithm.setup_client(context)
        for _ in range(STEPS):
            optimizer.zero_grad()
            model.loss(client).backward()
            optimizer.step()
        with torch.no_grad():
            extras = algorithm.finish_client(context)
        states[client] = {name: tensor.clone() for name, tensor in context.state.items()}
        algorithm.receive(ClientUpdate(client, model.state_dict(), SIZES[client], STEPS, {}, extras=extras))
    algorithm.step(model)
