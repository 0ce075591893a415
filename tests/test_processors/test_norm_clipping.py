import numpy as np
import pytest
import torch

from fedseg_mm.errors import FedSegError
from fedseg_mm.processors import NormClipping
from fedseg_mm.registry import UPDATE_PROCESSORS, build
from tests.test_processors.updates import clone, context, equal, flat, update


def test_hand_computed():
    """The length is that of both tensors as one vector: 3-4-12 has length 13."""
    clipping = NormClipping(max_norm=6.5)
    delta = clipping.at_client(dict(a=torch.tensor([3., 4.]), b=torch.tensor([[12.]])), context())
    torch.testing.assert_close(delta, dict(a=torch.tensor([1.5, 2.]), b=torch.tensor([[6.]])))
    assert clipping.metrics() == pytest.approx(dict(clipped_share=1.0, update_norm=13.0))


def test_short_updates_stay_bit_for_bit():
    delta = update(length=0.01)
    assert equal(NormClipping(100).at_client(clone(delta), context()), delta)
    zero = {name: torch.zeros_like(tensor) for name, tensor in delta.items()}
    assert equal(NormClipping(1e-3).at_client(clone(zero), context()), zero)
    assert NormClipping(1).at_client({}, context()) == {}


@pytest.mark.parametrize('dtype, tolerance', [(torch.float16, 2e-3), (torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_every_update_obeys_and_keeps_its_direction(dtype, tolerance):
    """Against the definition in float64, for lengths and bounds over ten orders of magnitude."""
    rng = np.random.RandomState(0)
    for seed in range(50):
        length, bound = (float(10 ** rng.uniform(-2, 2)) for _ in range(2))
        delta = update(seed, dtype, length)
        before = flat(delta)
        after = NormClipping(bound).at_client(clone(delta), context())
        assert all(after[name].dtype == dtype and after[name].shape == delta[name].shape for name in delta)
        after, norm = flat(after), np.linalg.norm(before)
        assert np.linalg.norm(after) <= bound * (1 + tolerance)
        np.testing.assert_allclose(after, before * min(1, bound / norm), rtol=5 * tolerance, atol=1e-6 * bound)


def test_mixed_types_and_large_numbers():
    """Squares of these overflow float32, and float16 has no such sum."""
    delta = dict(a=torch.full((4,), 1e30), b=torch.full((9,), 6e4, dtype=torch.float16))
    after = NormClipping(2.0).at_client(delta, context())
    np.testing.assert_allclose(after['a'].numpy(), 1.0, rtol=1e-6)
    assert after['b'].dtype == torch.float16 and after['b'].isfinite().all()


def test_large_tensors_are_measured_exactly():
    """float32's own sum of squares is wrong in the fourth digit here."""
    clipping = NormClipping(1.0)
    clipping.at_client(dict(a=torch.full((5_000_000,), 0.1)), context())
    assert clipping.metrics()['update_norm'] == pytest.approx(float(torch.tensor(0.1)) * 5_000_000 ** 0.5, rel=1e-9)


def test_metrics_are_means_and_start_anew():
    clipping = NormClipping(2.0)
    assert clipping.metrics() == {}
    for value in (1., 2., 3., 6.):  # a length of exactly the bound is not clipped
        clipping.at_client(dict(a=torch.tensor([value])), context())
    assert clipping.metrics() == dict(clipped_share=0.5, update_norm=3.0)
    assert clipping.metrics() == {}


def test_arguments():
    assert build(UPDATE_PROCESSORS, dict(type='NormClipping', max_norm=1), 'federated.processors').max_norm == 1
    for bad in (0, -1, float('inf'), '1', None, True):
        with pytest.raises(FedSegError, match=r'federated\.processors\.NormClipping\.max_norm'):
            NormClipping(bad)
    with pytest.raises(FedSegError, match='max_norm'):
        build(UPDATE_PROCESSORS, dict(type='NormClipping', norm=1), 'federated.processors')
