import pytest
import torch

from fedseg_mm import FedSegError
from fedseg_mm.aggregators import TrimmedMean
from tests.test_aggregators.references import (
    aggregate,
    assert_close,
    assert_same,
    by_coordinate,
    make_updates,
    trimmed_mean,
)


def test_hand_computed():
    values = [[1., 10.], [2., -90.], [900., 0.], [6., 2.]]
    result = aggregate(TrimmedMean(trim=0.25), [dict(w=torch.tensor(value)) for value in values], [5, 1, 90, 3])
    assert torch.equal(result['w'], torch.tensor([4., 1.]))


@pytest.mark.parametrize('trim, number, dropped', [
    (0, 5, 0), (0.1, 9, 0), (0.1, 10, 1), (0.1, 30, 3), (0.29, 100, 29), (0.34, 3, 1), (0.4, 5, 2), (0.49, 1, 0),
    (0.49999999999, 2, 0), (0.49, 7, 3)])
def test_equals_the_definition_in_float64(trim, number, dropped):
    updates, aggregator = make_updates(number), TrimmedMean(trim)
    assert aggregator.num_trimmed(number) == dropped
    expected = by_coordinate(updates, lambda values: trimmed_mean(values, dropped))
    assert_close(aggregate(aggregator, updates), expected)


def test_neither_order_nor_weights_matter():
    updates = make_updates(6)
    expected = aggregate(TrimmedMean(0.2), updates)
    assert_same(aggregate(TrimmedMean(0.2), updates[::-1], [3, 1, 4, 1, 5, 9]), expected)


@pytest.mark.parametrize('trim', [0.5, 1, -0.1, 'abc', None, float('nan'), True])
def test_what_would_leave_none_is_refused(trim):
    with pytest.raises(FedSegError, match='federated.aggregator.trim must be a number at least 0 and below 0.5'):
        TrimmedMean(trim)
