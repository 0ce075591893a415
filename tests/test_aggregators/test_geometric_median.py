import numpy as np
import pytest
import torch

from fedseg_mm import FedSegError
from fedseg_mm.aggregators import GeometricMedian
from tests.test_aggregators.references import (
    aggregate,
    assert_close,
    make_update,
    make_updates,
    vectors,
    weighted_sum,
    weiszfeld_shares,
)


def test_one_iteration_by_hand():
    """Of 0, 0 and 6: the mean is 2, at distances 2, 2 and 4; shares 0.4, 0.4 and 0.2."""
    updates = [dict(w=torch.tensor([value])) for value in (0., 0., 6.)]
    assert aggregate(GeometricMedian(iterations=1), updates, compared=None)['w'].item() == pytest.approx(1.2)


def test_known_medians():
    square = [dict(w=torch.tensor(point)) for point in ([0., 0.], [4., 0.], [0., 4.], [4., 4.])]
    assert aggregate(GeometricMedian(), square, compared=None)['w'].tolist() == pytest.approx([2, 2])
    # an update with half of the weight is the median itself; the smoothing keeps it from being a division by zero
    line = [dict(w=torch.tensor([value])) for value in (1., 5., 70.)]
    assert aggregate(GeometricMedian(), line, [3, 1, 1], compared=None)['w'].item() == pytest.approx(1, abs=1e-5)
    # 120 degrees between any two: the Fermat point of the triangle
    corners = [dict(w=torch.tensor([np.cos(a), np.sin(a)]) * r) for a, r in ((0, 1), (2.0943951, 5), (4.1887902, 9))]
    assert aggregate(GeometricMedian(1000), corners, compared=None)['w'].tolist() == pytest.approx([0, 0], abs=1e-4)


@pytest.mark.parametrize('with_reference', [False, True])
@pytest.mark.parametrize('number, iterations, epsilon', [(2, 5, 1e-6), (7, 1, 1e-6), (7, 4, 1e-6), (8, 30, 12.0)])
def test_equals_the_definition_in_float64(number, iterations, epsilon, with_reference):
    updates, weights = make_updates(number), [21, 3, 1, 40, 22, 9, 17, 5][:number]
    shares = weiszfeld_shares(vectors(updates), weights, iterations, epsilon)
    result = aggregate(GeometricMedian(iterations, epsilon), updates, weights,
                       make_update(77) if with_reference else None)
    for name, expected in weighted_sum(updates, shares).items():
        np.testing.assert_allclose(result[name].numpy(), expected, rtol=2e-6, atol=2e-6, err_msg=name)


def test_it_minimises_the_sum_of_distances():
    updates, weights = make_updates(8), [21, 3, 1, 40, 22, 9, 17, 5]

    def objective(point):
        return sum(weight * np.linalg.norm(point - other) for weight, other in zip(weights, vectors(updates)))

    result = aggregate(GeometricMedian(), updates, weights)
    point, = vectors([result])
    best, rng = objective(point), np.random.RandomState(0)
    assert best < objective(np.average(vectors(updates), axis=0, weights=weights))
    for _ in range(20):
        assert best <= objective(point + rng.normal(0, 0.05, point.shape))


def test_order_does_not_matter():
    updates, weights = make_updates(6), [3, 1, 4, 1, 5, 9]
    result = aggregate(GeometricMedian(), updates[::-1], weights[::-1])
    assert_close(result, {name: tensor.numpy() for name, tensor in aggregate(
        GeometricMedian(), updates, weights).items()})


@pytest.mark.parametrize('size', [1e4, 1e12, 1e30])
def test_a_huge_update_does_not_blur_the_others(size):
    """The median of the others moves by their spread at most, whatever the size of one."""
    honest = [dict(w=torch.tensor([0.1 * i, 1.])) for i in range(8)]
    result = aggregate(GeometricMedian(), [dict(w=torch.tensor([size, -size])), *honest],
                       reference=dict(w=torch.zeros(2)), compared=None)['w']
    assert 0.3 < result[0] < 0.6 and 0.9 < result[1] <= 1


@pytest.mark.parametrize('arguments, sentence', [
    (dict(iterations=0), 'federated.aggregator.iterations must be an integer of at least 1'),
    (dict(iterations=2.5), 'federated.aggregator.iterations must be an integer of at least 1'),
    (dict(epsilon=0), 'federated.aggregator.epsilon must be a number above 0'),
    (dict(epsilon='small'), 'federated.aggregator.epsilon must be a number above 0')])
def test_bad_arguments_are_refused(arguments, sentence):
    with pytest.raises(FedSegError, match=sentence):
        GeometricMedian(**arguments)
