import numpy as np
import pytest
import torch

from fedseg_mm.aggregators import WeightedMean


def updates(number, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        dict(weight=torch.randn(5, 3, generator=generator), running_var=torch.rand(7, generator=generator),
             num_batches_tracked=torch.tensor(10 + i)) for i in range(number)
    ]


def test_hand_computed():
    mean = WeightedMean()
    mean.add(dict(w=torch.tensor([1., 10.])), 1)
    mean.add(dict(w=torch.tensor([4., 40.])), 3)
    assert torch.equal(mean.result()['w'], torch.tensor([3.25, 32.5]))


def test_equals_the_definition_in_float64():
    received, images = updates(7), [21, 3, 1, 40, 22, 9, 17]
    mean = WeightedMean()
    for update, n in zip(received, images):
        mean.add(update, n)
    result = mean.result()
    for name in ('weight', 'running_var'):
        expected = np.average([update[name].double().numpy() for update in received], axis=0, weights=images)
        np.testing.assert_allclose(result[name].numpy(), expected, rtol=1e-6, atol=1e-7)


def test_mean_of_one_is_that_one_bit_for_bit():
    update, = updates(1)
    mean = WeightedMean()
    for _ in range(2):  # anew, and in reused tensors
        mean.add(update, 13)
        result = mean.result(reuse={name: torch.full_like(tensor, 7) for name, tensor in update.items()})
        assert all(torch.equal(result[name], update[name]) for name in update)
        mean.add(updates(1, seed=1)[0], 3)
        mean.result(reuse=result)


def test_integer_tensors_stay_integer():
    mean = WeightedMean()
    for update in updates(3):
        mean.add(update, 2)
    result = mean.result()['num_batches_tracked']
    assert result.dtype == torch.int64 and result.item() == 12


def test_updates_are_read_and_not_kept():
    """Live tensors may change after they were folded, and one set of tensors is held."""
    update, = updates(1)
    original = {name: tensor.clone() for name, tensor in update.items()}
    mean = WeightedMean()
    mean.add(update, 1)
    for tensor in update.values():
        tensor.zero_()
    assert all(torch.equal(tensor, original[name]) for name, tensor in mean.result().items())
    mean = WeightedMean()
    mean.add(updates(1)[0], 1)
    held = {name: tensor.data_ptr() for name, tensor in mean._mean.items()}
    mean.add(updates(2)[1], 1)
    assert held == {name: tensor.data_ptr() for name, tensor in mean.result().items()}


def test_misuse_is_refused():
    with pytest.raises(ValueError, match='no update'):
        WeightedMean().result()
    for weight in (0, -1, float('nan')):
        with pytest.raises(ValueError, match='positive'):
            WeightedMean().add(updates(1)[0], weight)
