import random

import numpy as np
import torch
from mmseg.registry import MODELS

from fedseg_mm.models import ProjectionHead
from tests.conftest import assert_same_bits


def test_its_weights_have_a_generator_of_their_own():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    first = ProjectionHead(8, 6, seed=1)
    assert torch.equal(torch.rand(4), expected)
    assert np.random.rand() == np.random.RandomState(3).rand() and random.random() == random.Random(3).random()
    assert_same_bits(first.state_dict(), ProjectionHead(8, 6, seed=1).state_dict())
    assert not torch.equal(first.layers[0].weight, ProjectionHead(8, 6, seed=2).layers[0].weight)


def by_hand(head, features):
    """1x1 convolution, batch norm with the batch's statistics, ReLU, 1x1 convolution, in float64."""
    tensors = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
    x = features.double().numpy().transpose(0, 2, 3, 1)
    x = x @ tensors['layers.0.weight'][:, :, 0, 0].T + tensors['layers.0.bias']
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    x = np.maximum(x * tensors['layers.1.weight'] + tensors['layers.1.bias'], 0)
    return (x @ tensors['layers.3.weight'][:, :, 0, 0].T + tensors['layers.3.bias']).transpose(0, 3, 1, 2)


def test_layers_by_hand():
    head = MODELS.build(dict(type='ProjectionHead', in_channels=8, channels=6)).train()
    features = torch.randn(3, 8, 5, 4)
    embeddings = head(features.clone())
    assert embeddings.shape == (3, 6, 5, 4)
    np.testing.assert_allclose(embeddings.detach().numpy(), by_hand(head, features), rtol=1e-4, atol=1e-5)


def test_features_are_left_as_they_are():
    """They go into the classifier too."""
    features = torch.randn(2, 8, 5, 4)
    before = features.clone()
    ProjectionHead(8)(features)
    assert torch.equal(features, before)


def test_another_norm_layer():
    head = ProjectionHead(8, 6, norm_cfg=dict(type='GN', num_groups=2))
    assert isinstance(head.layers[1], torch.nn.GroupNorm) and not list(head.buffers())
    plain = ProjectionHead(8, 6)
    assert torch.equal(head.layers[0].weight, plain.layers[0].weight) and type(plain.layers[1]) is torch.nn.BatchNorm2d
