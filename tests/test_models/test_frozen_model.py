import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn

from fedseg_mm.models import FrozenModel, PixelFeatures, ProjectionHead
from tests.conftest import assert_same_bits, tiny_config


def segmentor(tmp_path, seed):
    """A model whose weights and statistics are its own."""
    torch.manual_seed(seed)
    model = MODELS.build(tiny_config(tmp_path, tmp_path).model)
    model.projection_head = ProjectionHead(8, 6)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.train()


def copy_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def two(tmp_path):
    return segmentor(tmp_path, 1), segmentor(tmp_path, 2), torch.randn(2, 3, 48, 64)


def test_equals_the_model_whose_weights_it_gets_and_changes_neither(two):
    architecture, other, images = two
    before = copy_of(architecture), copy_of(other)
    frozen = FrozenModel(architecture)
    for model in (other, architecture):  # one copy serves both
        maps = frozen(model.state_dict(), images)
        embeddings, logits = maps.embeddings, maps.logits
        copied = frozen.module
        model.eval()
        with torch.no_grad():
            expected = model(images)
        model.train()
        assert torch.equal(logits, expected)
        torch.testing.assert_close(F.conv2d(embeddings, model.decode_head.conv_seg.weight,
                                            model.decode_head.conv_seg.bias), logits)
        assert not embeddings.requires_grad and not logits.requires_grad
    assert frozen.module is copied
    assert_same_bits(copy_of(architecture), before[0])
    assert_same_bits(copy_of(other), before[1])
    assert architecture.training and all(parameter.requires_grad for parameter in architecture.parameters())


def test_a_part_has_the_given_weights_too(two):
    architecture, other, _ = two
    features = torch.randn(2, 8, 5, 4)
    result = FrozenModel(architecture).part('projection_head', other.state_dict(), features)
    with torch.no_grad():
        assert torch.equal(result, other.projection_head.eval()(features))
    assert not result.requires_grad


def test_a_copy_made_while_features_are_caught_does_not_catch(two):
    """In a training step the local model's features are caught while the frozen model is first used."""
    architecture, other, images = two
    features = PixelFeatures(architecture)
    frozen = FrozenModel(architecture)
    with features.caught():
        logits = architecture(images)
        frozen_logits = frozen(other.state_dict(), images).logits
        caught = features.take()
        again = frozen(other.state_dict(), images).logits
    assert torch.equal(caught.logits, logits)
    assert caught.embeddings.requires_grad and caught.head_input.requires_grad
    assert torch.equal(frozen_logits, again) and not torch.equal(frozen_logits, logits)


def test_hooks_of_the_model_stay_with_it(two):
    """What the trainer hooks into the model's step must not run with the frozen one."""
    architecture, other, images = two
    frozen = FrozenModel(architecture)
    frozen(other.state_dict(), images)
    calls = []
    architecture.register_forward_hook(lambda *_: calls.append(1))
    frozen(other.state_dict(), images)
    assert not calls


def test_modules_that_are_shared_within_the_model(two):
    """A state_dict names their tensors twice."""
    architecture, other, images = two
    for model in (architecture, other):
        model.second_name = model.decode_head.conv_seg
    logits = FrozenModel(architecture)(other.state_dict(), images).logits
    with torch.no_grad():
        assert torch.equal(logits, other.eval()(images))


def test_holds_no_weights_of_its_own(two):
    """One set less in memory; what is shared stays shared, and what no state_dict holds stays as it is."""
    architecture, other, images = two
    architecture.decode_head.twin = architecture.decode_head.conv_seg
    architecture.decode_head.tied = nn.Conv2d(8, 4, 1)
    architecture.decode_head.tied.weight = architecture.decode_head.conv_seg.weight
    module = FrozenModel(architecture).module
    assert all(tensor.is_meta for tensor in module.state_dict().values())
    assert all(isinstance(parameter, nn.Parameter) for parameter in module.parameters())
    head = module.decode_head
    assert head.twin is head.conv_seg and head.tied.weight is head.conv_seg.weight
    assert module.state_dict().keys() == architecture.state_dict().keys()
    for name in ('mean', 'std'):
        assert torch.equal(getattr(module.data_preprocessor, name), getattr(architecture.data_preprocessor, name))
    assert not any(tensor.is_meta for tensor in architecture.state_dict().values())
    # a shared weight has one value: the one that a state_dict has under both names
    expected = architecture.eval()(images)
    assert torch.equal(FrozenModel(architecture)(architecture.state_dict(), images).logits, expected)
