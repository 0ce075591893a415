import numpy as np
import pytest
import torch

from fedseg_mm import FedSegError
from fedseg_mm.aggregators import NormClippedMean, WeightedMean
from tests.test_aggregators.references import aggregate, assert_same, clipped_mean, make_update, make_updates

WEIGHTS = [21, 3, 1, 40, 22, 9, 17]


def test_hand_computed():
    """Changes (3, 4) of length 5, clipped to 2.5, and (0, 1), which stays."""
    reference = dict(w=torch.tensor([1., 1.]))
    updates = [dict(w=torch.tensor([4., 5.])), dict(w=torch.tensor([1., 2.]))]
    result = aggregate(NormClippedMean(max_norm=2.5), updates, [1, 3], reference, ['w'])
    assert torch.equal(result['w'], torch.tensor([1 + 1.5 / 4, 1 + 2 / 4 + 3 / 4]))


@pytest.mark.parametrize('max_norm', [1e-3, 5.0, 15.5, 1e3])
@pytest.mark.parametrize('with_reference', [False, True])
def test_equals_the_definition_in_float64(max_norm, with_reference):
    updates, reference = make_updates(7), make_update(77)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in reference.items()}
    result = aggregate(NormClippedMean(max_norm), updates, WEIGHTS, reference if with_reference else None)
    expected = clipped_mean(updates, WEIGHTS, reference if with_reference else zeros, max_norm)
    for name, values in expected.items():  # lengths of float32 tensors are measured in float32
        np.testing.assert_allclose(result[name].numpy(), values, rtol=2e-6, atol=2e-6, err_msg=name)
    assert result['num_batches_tracked'] == 14


def test_updates_that_are_short_enough_are_averaged_bit_for_bit():
    updates, reference = make_updates(7), make_update(77)
    assert_same(aggregate(NormClippedMean(1e3), updates, WEIGHTS, reference),
                aggregate(WeightedMean(), updates, WEIGHTS, reference))


def test_statistics_are_not_measured_but_shortened_too():
    reference = dict(w=torch.zeros(2), running_mean=torch.zeros(1))
    update = dict(w=torch.tensor([6., 8.]), running_mean=torch.tensor([300.]))
    result = aggregate(NormClippedMean(5), [update], [1], reference, ['w'])
    assert torch.equal(result['w'], torch.tensor([3., 4.])) and result['running_mean'].item() == 150


@pytest.mark.parametrize('with_reference', [False, True])
@pytest.mark.parametrize('place', [0, 1])
@pytest.mark.parametrize('size', [1e12, 3e38])
def test_a_huge_update_keeps_the_digits_of_the_others(size, place, with_reference):
    """Nothing is added and taken off again; what overflows in float32 counts as no change."""
    reference = dict(w=torch.tensor([0.5, 0.25]))
    updates = [dict(w=torch.tensor([0.6, 0.3]))]
    updates.insert(place, dict(w=torch.tensor([size, size])))
    result = aggregate(NormClippedMean(1.0), updates, [1, 1], reference if with_reference else None, None)['w']
    start = reference['w'] if with_reference else torch.zeros(2)
    pull = 0.5**0.5 if size < 1e30 else 0
    torch.testing.assert_close(result, start + (updates[1 - place]['w'] - start + pull) / 2, rtol=1e-6, atol=1e-7)


def test_one_set_of_tensors_is_held_and_results_are_reused():
    reference, mean = make_update(77), NormClippedMean(5.0)
    first = aggregate(mean, make_updates(3), reference=reference)
    assert mean._mean == {} and mean._reference is None and mean.total == 0
    expected = aggregate(NormClippedMean(5.0), make_updates(3, 20), reference=reference)
    held = {name: torch.full_like(tensor, float('nan') if tensor.is_floating_point() else 99)
            for name, tensor in first.items()}
    aggregate(mean, make_updates(2), reference=reference, reuse=held)
    result = aggregate(mean, make_updates(3, 20), reference=reference)
    assert all(result[name] is held[name] for name in held)
    assert_same(result, expected)


@pytest.mark.parametrize('max_norm', [0, -1, 'abc', float('inf')])
def test_bad_arguments_are_refused(max_norm):
    with pytest.raises(FedSegError, match='federated.aggregator.max_norm must be a number above 0'):
        NormClippedMean(max_norm)
