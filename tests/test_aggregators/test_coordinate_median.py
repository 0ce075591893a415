import pytest
import torch

from fedseg_mm.aggregators import CoordinateMedian
from tests.test_aggregators.references import aggregate, assert_close, assert_same, by_coordinate, make_updates, median


@pytest.mark.parametrize('values, expected', [
    ([[1., 10.], [2., -5.], [9., 0.]], [2., 0.]),
    ([[1., 10.], [2., -5.], [9., 0.], [4., 1.]], [3., 0.5]),  # the mean of the two middle values
    ([[1., 10.], [4., -5.]], [2.5, 2.5])])
def test_hand_computed(values, expected):
    result = aggregate(CoordinateMedian(), [dict(w=torch.tensor(value)) for value in values], [5, 1, 90, 3])
    assert torch.equal(result['w'], torch.tensor(expected))


@pytest.mark.parametrize('number', [1, 2, 7, 8])
def test_equals_the_definition_in_float64(number):
    updates = make_updates(number)
    assert_close(aggregate(CoordinateMedian(), updates), by_coordinate(updates, median))


def test_neither_order_nor_weights_matter():
    updates = make_updates(6)
    expected = aggregate(CoordinateMedian(), updates)
    assert_same(aggregate(CoordinateMedian(), updates[::-1], [3, 1, 4, 1, 5, 9]), expected)


def test_the_middle_of_large_values_does_not_overflow():
    large = torch.tensor([3e38])
    assert torch.equal(aggregate(CoordinateMedian(), [dict(w=large), dict(w=large)])['w'], large)
