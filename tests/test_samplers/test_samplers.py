import numpy as np
import pytest

from fedseg_mm import FedSegError
from fedseg_mm.samplers import AllClientsSampler, PoissonSampler, UniformSampler, WeightedSampler


def made(sampler, num_clients, clients_per_round, num_images=None):
    sampler.setup(num_clients, clients_per_round, num_images or [1] * num_clients)
    return sampler


def drawn(sampler, rounds=4000):
    """How often each client is drawn, and the sizes of the cohorts."""
    cohorts = [sampler.cohort(0, round) for round in range(rounds)]
    return np.bincount(np.concatenate(cohorts).astype(int), minlength=sampler.num_clients), list(map(len, cohorts))


SAMPLERS = [UniformSampler, WeightedSampler, PoissonSampler, AllClientsSampler]


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_without_replacement_and_within_the_federation(sampler):
    for round in range(50):
        cohort = made(sampler(), 22, 5).cohort(0, round)
        assert len(set(cohort)) == len(cohort) and set(cohort) <= set(range(22))
        assert sampler is PoissonSampler or len(cohort) == (22 if sampler is AllClientsSampler else 5)
    assert sorted(made(sampler(), 5, 5).cohort(0, 0)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_follows_from_seed_and_round_alone(sampler):
    cohorts = [made(sampler(), 22, 5).cohort(1, round) for round in range(4)]
    np.random.seed(3)
    assert [made(sampler(), 22, 5).cohort(1, round) for round in reversed(range(4))] == cohorts[::-1]
    others = [made(sampler(), 22, 5).cohort(2, round) for round in range(4)]
    assert (cohorts == others) == (sampler is AllClientsSampler)


def test_uniform():
    counts, _ = drawn(made(UniformSampler(), 10, 3))
    assert abs(counts - 1200).max() < 5 * np.sqrt(4000 * 0.3 * 0.7)


def test_weights_by_hand():
    """One of three, with the weights 1, 0 and 3."""
    counts, _ = drawn(made(WeightedSampler([1, 0, 3.0]), 3, 1))
    assert counts[1] == 0 and abs(counts[0] - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75)


def test_weights_are_the_images_unless_named():
    counts, _ = drawn(made(WeightedSampler(), 3, 1, [30, 10, 0]))
    assert counts[2] == 0 and abs(counts[0] - 3000) < 5 * np.sqrt(4000 * 0.25 * 0.75)


@pytest.mark.parametrize('probability, expected', [(None, 0.3), (0.05, 0.05)])
def test_poisson_cohorts_are_of_any_size_and_clients_independent(probability, expected):
    sampler = made(PoissonSampler(probability), 10, 3)
    counts, sizes = drawn(sampler)
    assert abs(counts - 4000 * expected).max() < 5 * np.sqrt(4000 * expected * (1 - expected))
    assert np.var(sizes) == pytest.approx(10 * expected * (1 - expected), rel=0.15)  # binomial
    assert (0 in sizes) and len(set(sizes)) > 3


@pytest.mark.parametrize('size', [0, 23])
def test_impossible_cohorts_are_refused(size):
    with pytest.raises(FedSegError, match='between 1 and the number of clients of the federation, 22'):
        made(UniformSampler(), 22, size)


@pytest.mark.parametrize('make, sentence', [
    (lambda: WeightedSampler('pixels'), "federated.sampler.weights must be 'images' or a list of numbers"),
    (lambda: WeightedSampler([1, -1]), 'federated.sampler.weights must be'),
    (lambda: made(WeightedSampler([1, 2]), 3, 1), 'has 2 numbers, but there are 3 clients'),
    (lambda: made(WeightedSampler([1, 0, 0]), 3, 2), 'only 1 of the weights in federated.sampler.weights are above 0'),
    (lambda: PoissonSampler(0), 'federated.sampler.probability must be a number above 0 and at most 1')])
def test_what_cannot_be_drawn_is_refused(make, sentence):
    with pytest.raises(FedSegError, match=sentence):
        make()
