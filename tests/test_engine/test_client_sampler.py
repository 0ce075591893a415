import numpy as np
import pytest

from fedseg_mm import FedSegError
from fedseg_mm.engine import ClientSampler


def test_without_replacement_and_within_the_federation():
    for round in range(50):
        cohort = ClientSampler(22, 5).cohort(0, round)
        assert len(set(cohort)) == 5 and set(cohort) <= set(range(22))
    assert sorted(ClientSampler(5, 5).cohort(0, 0)) == [0, 1, 2, 3, 4]


def test_follows_from_seed_and_round_alone():
    cohorts = [ClientSampler(22, 5).cohort(1, round) for round in range(4)]
    np.random.seed(3)
    assert [ClientSampler(22, 5).cohort(1, round) for round in reversed(range(4))] == cohorts[::-1]
    assert cohorts != [ClientSampler(22, 5).cohort(2, round) for round in range(4)]


def test_uniform():
    drawn = np.bincount([c for round in range(4000) for c in ClientSampler(10, 3).cohort(0, round)], minlength=10)
    assert abs(drawn - 1200).max() < 5 * np.sqrt(4000 * 0.3 * 0.7)


@pytest.mark.parametrize('size', [0, 23])
def test_impossible_cohorts_are_refused(size):
    with pytest.raises(FedSegError, match='between 1 and the number of clients of the federation, 22'):
        ClientSampler(22, size)
