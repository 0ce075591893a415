"""Each attack against its equation, written with numpy."""
from statistics import NormalDist

import numpy as np
import pytest
import torch

from fedseg_mm import FedSegError
from fedseg_mm.attacks import (
    ALIE,
    Attack,
    GaussianNoise,
    HonestUpdates,
    InnerProductManipulation,
    LabelFlip,
    Scaling,
    SignFlip,
)

RNG = np.random.RandomState(0)
HONEST = [{'a': RNG.randn(3, 2).astype(np.float32), 'b': RNG.randn(4).astype(np.float32)} for _ in range(7)]


def tensors(delta):
    return {name: torch.from_numpy(value.copy()) for name, value in delta.items()}


def sent(attack, cohort=10, hostile=3, seed=0, known=True):
    honest = HonestUpdates()
    for delta in HONEST if known else []:
        honest.add(tensors(delta))
    own = {'a': np.full((3, 2), 2, np.float32), 'b': np.full(4, -1, np.float32)}
    found = attack.delta(tensors(own), honest, cohort, hostile, torch.Generator().manual_seed(seed))
    assert all(found[name].dtype == torch.float32 and found[name].shape == own[name].shape for name in own)
    return own, {name: tensor.numpy() for name, tensor in found.items()}


def test_mean_and_spread_of_honest_updates():
    honest = HonestUpdates()
    for delta in HONEST:
        honest.add(tensors(delta))
    for name in ('a', 'b'):
        values = np.stack([delta[name] for delta in HONEST]).astype(np.float64)
        assert np.allclose(honest.mean()[name], values.mean(0)) and np.allclose(honest.std()[name], values.std(0))


@pytest.mark.parametrize('attack, factor', [(SignFlip(), -4), (SignFlip(1), -1), (Scaling(), 10), (Scaling(0.5), 0.5)])
def test_flipped_and_scaled(attack, factor):
    own, found = sent(attack)
    assert all(np.array_equal(found[name], factor * own[name]) for name in own)


def test_noise_is_as_long_as_asked_and_follows_from_the_seed():
    attack = GaussianNoise(3)
    own, found = sent(attack)
    assert all(np.array_equal(found[name], sent(attack)[1][name]) for name in own)
    assert not np.array_equal(found['a'], sent(attack, seed=1)[1]['a'])
    lengths = [np.sqrt(sum((sent(attack, seed=seed)[1][name]**2).sum() for name in own)) for seed in range(200)]
    assert np.mean(lengths) == pytest.approx(3 * np.sqrt(6 * 4 + 4 * 1), rel=0.1)


def test_alie():
    own, found = sent(ALIE())
    supporters = 10 // 2 + 1 - 3
    z = NormalDist().inv_cdf((10 - 3 - supporters) / (10 - 3))
    assert z > 0.1
    for name in own:
        values = np.stack([delta[name] for delta in HONEST]).astype(np.float64)
        assert np.allclose(found[name], values.mean(0) - z * values.std(0), atol=1e-6)
        assert np.allclose(sent(ALIE(z=0))[1][name], values.mean(0), atol=1e-6)
    assert ALIE.largest_z(10, 0) == 0 and ALIE.largest_z(3, 3 - 1) > 2


def test_inner_product_manipulation():
    own, found = sent(InnerProductManipulation(0.3))
    mean = {name: np.stack([delta[name] for delta in HONEST]).mean(0) for name in own}
    assert all(np.allclose(found[name], -0.3 * mean[name], atol=1e-6) for name in own)
    assert sum((found[name] * mean[name]).sum() for name in own) < 0


@pytest.mark.parametrize('attack', [ALIE(), InnerProductManipulation()])
def test_without_honest_updates_there_is_nothing_to_know(attack):
    own, found = sent(attack, known=False)
    assert all(np.array_equal(found[name], own[name]) for name in own)


def test_flipped_labels():
    labels = torch.tensor([[0, 1, 3, 254, 255]], dtype=torch.uint8)
    assert LabelFlip().labels(labels, 4).tolist() == [[3, 2, 0, 254, 255]]
    assert torch.equal(Attack().labels(labels, 4), labels)


@pytest.mark.parametrize('make, sentence', [
    (lambda: SignFlip(0), 'SignFlip.scale must be a number above 0, but is 0'),
    (lambda: Scaling(-1), 'Scaling.scale must be a number above 0, but is -1'),
    (lambda: GaussianNoise(float('nan')), 'GaussianNoise.scale'),
    (lambda: ALIE(-1), 'ALIE.z must be a number at least 0, but is -1'),
    (lambda: InnerProductManipulation(0), 'InnerProductManipulation.epsilon must be a number above 0, but is 0')])
def test_wrong_settings(make, sentence):
    with pytest.raises(FedSegError, match=sentence):
        make()
