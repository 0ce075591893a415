import numpy as np
import pytest

from fedseg_mm import FedSegError
from fedseg_mm.datasets import DirichletPartitioner
from fedseg_mm.datasets.partitioners.class_partitioner import assign_images

#: 3000 images that show one of ten classes each.
COUNTS = np.eye(10, dtype=np.int64)[np.arange(3000) % 10]


def held(**arguments) -> np.ndarray:
    """Images of each class at each client, int (clients, classes)."""
    partition = DirichletPartitioner(**arguments).partition(COUNTS)
    indices = [index for shard in partition.clients for index in shard.indices]
    assert sorted(indices) == list(range(3000))
    return np.stack([COUNTS[list(shard.indices)].sum(0) for shard in partition.clients])


def test_large_alpha_makes_clients_alike():
    shares = held(num_clients=5, alpha=1000) / 300
    assert np.abs(shares - 0.2).max() < 0.08  # three standard deviations of 300 draws


def test_small_alpha_gives_a_client_few_classes():
    """At alpha 0.05, most of a class is at one client; at 1000, a fifth of it."""
    assert held(num_clients=5, alpha=0.05).max(0).mean() > 0.75 * 300
    assert held(num_clients=5, alpha=1000).max(0).mean() < 0.3 * 300


def test_shares_have_the_distributions_spread():
    """The variance of a share under Dir(alpha), K clients: (K - 1) / (K^2 (K alpha + 1)), and that of the draws."""
    shares = np.concatenate([held(num_clients=4, alpha=0.5, seed=seed) for seed in range(60)]) / 300
    expected = 3 / (16 * 3)
    sampling = (0.25 * 0.75 - expected) / 300
    assert shares.var() == pytest.approx(expected + sampling, rel=0.06)


@pytest.mark.parametrize('alpha', [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize('clients, least', [(2, 1), (30, 20), (40, 75)])
def test_every_client_has_its_least_images(alpha, clients, least):
    """Also where all of a tiny alpha's draws underflow to zero."""
    assert held(num_clients=clients, alpha=alpha, min_images=least).sum(1).min() >= least


def naive(counts, clients, alpha, least, seed):
    """The definition, image by image: shares, draws, and one move after the other."""
    rng = np.random.RandomState(seed)
    classes = counts.shape[1]
    shares = rng.dirichlet(np.full(clients, alpha), classes)
    only = np.eye(clients)[rng.randint(clients, size=classes)]
    shares = np.where(np.isnan(shares), only, shares)
    usable = np.flatnonzero(counts.any(1))
    assigned = assign_images(counts > 0, rng)[usable]
    client = (shares.cumsum(1)[:, :-1][assigned] < rng.rand(len(usable), 1)).sum(1)
    size = np.bincount(client, minlength=clients)
    while size.min() < least:
        poor, rich = size.argmin(), size.argmax()
        client[rng.choice(np.flatnonzero(client == rich))] = poor
        size = np.bincount(client, minlength=clients)
    return [tuple(usable[client == k].tolist()) for k in range(clients)]


@pytest.mark.parametrize('alpha', [1e-4, 0.05, 0.5, 100])
@pytest.mark.parametrize('clients, least', [(1, 5), (7, 1), (90, 1), (90, 3), (400, 1)])
def test_split_is_that_of_the_definition(alpha, clients, least):
    """Bit for bit, whatever is done to be fast: a partition is part of a run's name."""
    rng = np.random.RandomState(clients)
    counts = (rng.rand(500, 6) < [0.9, 0.6, 0.4, 0.3, 0.1, 0.02]).astype(np.int64)
    partition = DirichletPartitioner(clients, alpha, least, seed=3).partition(counts)
    assert [shard.indices for shard in partition.clients] == naive(counts, clients, alpha, least, 3)


def test_one_client_with_all_images_feeds_the_others():
    """It is in several blocks, from the first and the last of which images go."""
    counts = np.ones((5000, 1), np.int64)
    partition = DirichletPartitioner(300, 1e-4, 2).partition(counts)
    assert [shard.indices for shard in partition.clients] == naive(counts, 300, 1e-4, 2, 0)


@pytest.mark.parametrize('alpha', [0, -1, 'a', True, float('inf'), float('nan')])
def test_impossible_alphas_are_refused(alpha):
    with pytest.raises(FedSegError, match='`alpha` of DirichletPartitioner must be a number above 0'):
        DirichletPartitioner(3, alpha)


def test_too_few_images_are_refused():
    with pytest.raises(FedSegError, match='min_images=76 needs 3040 images that show a class, but there are 3000'):
        held(num_clients=40, min_images=76)
