import numpy as np
import pytest
import torch

from fedseg_mm.errors import FedSegError
from fedseg_mm.processors import GaussianMechanism, NormClipping
from fedseg_mm.seeding import derive_seed
from tests.test_processors.updates import clone, context, equal, flat, update


def zeros(number=200_000):
    return dict(a=torch.zeros(number), b=torch.zeros(2, 3), c=torch.zeros(()), d=torch.zeros(0))


def mechanism(seed=3, **arguments):
    mechanism = GaussianMechanism(**{'noise_multiplier': 0.5, 'max_norm': 4.0, **arguments})
    mechanism.setup(seed)
    return mechanism


def test_clips_as_norm_clipping_does():
    delta = update(length=10)
    clipped = NormClipping(4.0).at_client(clone(delta), context())
    assert equal(mechanism().at_client(clone(delta), context()), clipped)


def test_noise_has_the_standard_deviation_of_the_mean():
    """0.5 * 4 / 8 = 0.25; moments of 200 000 normal numbers within five standard errors."""
    noise = mechanism().at_server(zeros(), total=8.0, round=0)['a'].double().numpy() / 0.25
    n = len(noise)
    assert abs(noise.mean()) < 5 / n ** 0.5
    assert abs((noise ** 2).mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs((noise ** 4).mean() - 3) < 5 * (96 / n) ** 0.5
    assert abs((noise[:-1] * noise[1:]).mean()) < 5 / n ** 0.5


def test_noise_is_added_to_the_change():
    """The same noise on any change, in float16 and float64 too, and all tensors have it."""
    noise = mechanism().at_server(zeros(10), 2.0, round=4)
    assert all(tensor.count_nonzero() == tensor.numel() for tensor in noise.values())
    for dtype in (torch.float16, torch.float32, torch.float64):
        ones = {name: torch.ones_like(tensor, dtype=dtype) for name, tensor in noise.items()}
        noisy = mechanism().at_server(ones, 2.0, round=4)
        assert all(tensor.dtype == dtype for tensor in noisy.values())
        np.testing.assert_allclose(flat(noisy), flat(noise) + 1, atol=4e-3 if dtype == torch.float16 else 1e-6)


def test_noise_follows_from_seed_and_round_alone():
    torch.manual_seed(1)
    first = mechanism().at_server(zeros(10), 8.0, round=2)
    used = mechanism()
    for round in range(2):
        used.at_server(zeros(10), 8.0, round)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert equal(used.at_server(zeros(10), 8.0, round=2), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not equal(used.at_server(zeros(10), 8.0, round=3), first)
    assert not equal(mechanism(seed=4).at_server(zeros(10), 8.0, round=2), first)
    generator = torch.Generator().manual_seed(derive_seed(3, 'noise', 2))
    torch.testing.assert_close(first['a'], 0.25 * torch.randn(17, generator=generator)[:10])


def test_noise_that_cannot_be_reproduced():
    first, second = (mechanism(reproducible=False).at_server(zeros(10), 8.0, round=2) for _ in range(2))
    assert not equal(first, second)


def test_no_noise():
    delta = update()
    assert equal(mechanism(noise_multiplier=0).at_server(clone(delta), 8.0, round=0), delta)
    assert mechanism().at_server({}, 8.0, round=0) == {}


def test_metrics():
    used = mechanism()
    used.at_client(dict(a=torch.tensor([8.])), context())
    used.at_server(zeros(10), 8.0, round=0)
    assert used.metrics() == dict(clipped_share=1.0, update_norm=8.0, noise_std=0.25)
    assert used.metrics() == {}


def test_refusals():
    for arguments, key in ((dict(max_norm=0), 'max_norm'), (dict(noise_multiplier=-1), 'noise_multiplier'),
                           (dict(reproducible=1), 'reproducible')):
        with pytest.raises(FedSegError, match=rf'federated\.processors\.GaussianMechanism\.{key}'):
            mechanism(**arguments)
    with pytest.raises(FedSegError, match='weight 1 in the mean, but that of client 6 has 21'):
        mechanism().at_client(update(), context(client=6, weight=21.0))
    with pytest.raises(RuntimeError, match='setup'):
        GaussianMechanism(1.0, 1.0).at_server(zeros(10), 8.0, round=0)
