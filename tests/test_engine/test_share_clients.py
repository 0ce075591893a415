import pytest

from fedseg_mm.engine.share_clients import share_clients


def test_largest_first_by_hand():
    # 9 to the first; 7 to the second; 6 to the second (13); 5 to the first (14); 2 to the second (15)
    assert share_clients([10, 11, 12, 13, 14], [5, 9, 2, 7, 6], 2) == [[10, 11], [12, 13, 14]]


def test_equal_clients_are_shared_evenly_and_keep_their_order():
    assert share_clients(list(range(6)), [4] * 6, 2) == [[0, 2, 4], [1, 3, 5]]
    assert share_clients([3, 1], [1, 1], 1) == [[3, 1]]


@pytest.mark.parametrize('processes', [1, 3, 7])
def test_every_client_once(processes):
    cohort, costs = [4, 8, 1, 9, 2], [3, 1, 4, 1, 5]
    shares = share_clients(cohort, costs, processes)
    assert len(shares) == processes and sorted(sum(shares, [])) == sorted(cohort)
