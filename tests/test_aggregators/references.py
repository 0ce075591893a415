"""Updates to combine, and the aggregators as loops in float64, written from the papers."""
import numpy as np
import torch

COMPARED = ('weight', 'bias')


def make_update(seed: int, shift: float = 0.0) -> dict[str, torch.Tensor]:
    """Tensors of several shapes, layouts and types; of them, ``COMPARED`` are trained."""
    generator = torch.Generator().manual_seed(seed)
    return dict(
        running_var=torch.rand(7, generator=generator) + 0.5,
        weight=(torch.randn(4, 3, 5, 2, generator=generator) + shift).to(memory_format=torch.channels_last),
        bias=(torch.randn(6, 3, generator=generator, dtype=torch.float64) + shift).T,
        scale=torch.randn((), generator=generator, dtype=torch.float64),
        num_batches_tracked=torch.tensor(10 + seed % 5),
        none=torch.zeros(0))


def make_updates(number: int, first_seed: int = 0) -> list[dict[str, torch.Tensor]]:
    return [make_update(first_seed + i) for i in range(number)]


def aggregate(aggregator, updates, weights=None, reference=None, compared=COMPARED, reuse=None):
    """One round, as an algorithm runs it."""
    aggregator.begin(reference, compared)
    for update, weight in zip(updates, weights or [1] * len(updates)):
        aggregator.add(update, weight)
    return aggregator.result(reuse)


def assert_close(result: dict, expected: dict) -> None:
    """The result of an aggregator beside that of a loop."""
    for name, tensor in expected.items():
        tolerance = 1e-12 if result[name].dtype == torch.float64 else 2e-6
        np.testing.assert_allclose(result[name].numpy(), tensor, rtol=tolerance, atol=tolerance, err_msg=name)


def assert_same(result: dict, expected: dict) -> None:
    assert result.keys() == expected.keys()
    for name, tensor in expected.items():
        assert result[name].dtype == tensor.dtype and torch.equal(result[name], tensor), name


def in_float64(updates) -> dict[str, np.ndarray]:
    """Floating point tensors, of all updates along the first dimension."""
    return {name: np.stack([update[name].double().numpy() for update in updates])
            for name, tensor in updates[0].items() if tensor.is_floating_point()}


def by_coordinate(updates, function) -> dict[str, np.ndarray]:
    """Apply a function of a list of numbers to every coordinate."""
    return {name: np.array([function(list(column)) for column in values.reshape(len(updates), -1).T]).reshape(
        values.shape[1:]) for name, values in in_float64(updates).items()}


def median(values):
    values = sorted(values)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def trimmed_mean(values, dropped):
    values = sorted(values)
    return np.mean(values[dropped:len(values) - dropped])


def vectors(updates, compared=COMPARED) -> list[np.ndarray]:
    return [np.concatenate([update[name].double().numpy().ravel() for name in compared]) for update in updates]


def weighted_sum(updates, shares) -> dict[str, np.ndarray]:
    return {name: np.tensordot(shares, values, 1) for name, values in in_float64(updates).items()}


def krum_scores(points, num_malicious):
    scores = []
    for i, point in enumerate(points):
        others = sorted(np.sum((point - other)**2) for j, other in enumerate(points) if j != i)
        scores.append(sum(others[:len(points) - num_malicious - 2]))
    return scores


def weiszfeld_shares(points, weights, iterations, epsilon):
    """Smoothed Weiszfeld on the points themselves, from their weighted mean."""
    shares = np.array(weights) / np.sum(weights)
    for _ in range(iterations):
        centre = sum(share * point for share, point in zip(shares, points))
        beta = np.array([weight / max(epsilon, np.linalg.norm(centre - point))
                         for weight, point in zip(weights, points)])
        shares = beta / beta.sum()
    return shares


def clipped_mean(updates, weights, reference, max_norm, compared=COMPARED):
    """Mean of clipped changes, added to the reference."""
    changes = in_float64([{name: update[name] - reference[name] for name in update} for update in updates])
    lengths = [np.linalg.norm(np.concatenate([changes[name][i].ravel() for name in compared]))
               for i in range(len(updates))]
    factors = [weight / sum(weights) * min(1, max_norm / length) for weight, length in zip(weights, lengths)]
    return {name: reference[name].double().numpy() + np.tensordot(factors, change, 1)
            for name, change in changes.items()}
