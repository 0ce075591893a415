import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn

from fedseg_mm import FedSegError
from fedseg_mm.models import PixelFeatures
from fedseg_mm.models.pixel_features import head_input_channels
from tests.conftest import tiny_config

HEAD = dict(in_channels=8, channels=8, in_index=-1, num_classes=4, norm_cfg=dict(type='BN'), dropout_ratio=0.5,
            loss_decode=dict(type='BackCELoss'))


def segmentor(tmp_path, **changes):
    cfg = tiny_config(tmp_path, tmp_path).model
    cfg.decode_head.dropout_ratio = 0.5
    for key, value in changes.items():
        cfg[key] = value
    torch.manual_seed(0)
    return MODELS.build(cfg)


def images(seed=0):
    return torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(seed))


def classify(head, embeddings):
    return F.conv2d(embeddings, head.conv_seg.weight, head.conv_seg.bias)


def test_logits_are_the_classifiers_output_on_the_embeddings(tmp_path):
    model = segmentor(tmp_path).eval()
    features = PixelFeatures(model)
    with torch.no_grad(), features.caught():
        output = model(images())
        maps = features.take()
    embeddings, logits = maps.embeddings, maps.logits
    assert features.channels == embeddings.shape[1] == 8
    assert torch.equal(logits, output)
    torch.testing.assert_close(logits, classify(model.decode_head, embeddings))


def test_embeddings_are_taken_before_dropout(tmp_path):
    """Twice the same batch in training: the same embeddings, other logits; gradients flow through them."""
    model = segmentor(tmp_path).train()
    features = PixelFeatures(model)
    with features.caught():
        one, other = ((model(images()), features.take())[1] for _ in range(2))
    (first, first_logits), (second, second_logits) = ((maps.embeddings, maps.logits) for maps in (one, other))
    assert torch.equal(first, second) and not torch.equal(first_logits, second_logits)
    with pytest.raises(AssertionError):  # holes in what the classifier saw
        torch.testing.assert_close(first_logits, classify(model.decode_head, first))
    assert first.requires_grad


def test_a_head_without_dropout(tmp_path):
    cfg = tiny_config(tmp_path, tmp_path).model.decode_head
    cfg.dropout_ratio = 0
    model = segmentor(tmp_path, decode_head=cfg).train()
    features = PixelFeatures(model)
    with features.caught():
        model(images())
        maps = features.take()
    embeddings, logits = maps.embeddings, maps.logits
    torch.testing.assert_close(logits, classify(model.decode_head, embeddings))


def test_of_a_cascade_the_last_head_decides(tmp_path):
    model = segmentor(tmp_path, type='CascadeEncoderDecoder', num_stages=2, decode_head=[
        dict(type='FCNHead', num_convs=1, **HEAD), dict(type='OCRHead', ocr_channels=4, **{**HEAD, 'channels': 6})])
    model.eval()
    features = PixelFeatures(model)
    with torch.no_grad(), features.caught():
        output = model(images())
        maps = features.take()
    embeddings, logits = maps.embeddings, maps.logits
    assert features.channels == embeddings.shape[1] == 6
    assert torch.equal(logits, output)
    torch.testing.assert_close(logits, classify(model.decode_head[-1], embeddings))


def test_dual_attention_uses_dropout_three_times_and_decides_on_the_sum(tmp_path):
    model = segmentor(tmp_path, decode_head=dict(type='DAHead', pam_channels=4, **HEAD)).train()
    parts = []
    for branch in (model.decode_head.pam_out_conv, model.decode_head.cam_out_conv):
        branch.register_forward_hook(lambda module, args, output: parts.append(output))
    features = PixelFeatures(model)
    with features.caught():
        output, *_ = model(images())
        maps = features.take()
    embeddings, logits = maps.embeddings, maps.logits
    assert torch.equal(embeddings, parts[0] + parts[1]) and torch.equal(logits, output)


def test_only_while_open_and_only_once(tmp_path):
    model = segmentor(tmp_path)
    features = PixelFeatures(model)
    model(images())
    with features.caught():
        with pytest.raises(FedSegError, match='DepthwiseSeparableFCNHead does not use its classifier'):
            features.take()
        model(images())
        features.take()
        with pytest.raises(FedSegError):
            features.take()
    head = model.decode_head
    assert not (head.conv_seg._forward_hooks or head.conv_seg._forward_pre_hooks or head.dropout._forward_pre_hooks)


def test_heads_that_classify_otherwise_are_refused_in_one_sentence(tmp_path):
    transformer = segmentor(tmp_path, decode_head=dict(
        type='SegmenterMaskTransformerHead', num_layers=1, num_heads=2, embed_dims=8,
        **{**HEAD, 'norm_cfg': dict(type='LN')}))
    other = segmentor(tmp_path)
    other.decode_head.conv_seg = nn.Linear(8, 4)
    for model, name in ((transformer, 'SegmenterMaskTransformerHead'), (other, 'DepthwiseSeparableFCNHead')):
        with pytest.raises(FedSegError, match=f'^{name} .*no conv_seg.* choose another decode head') as error:
            PixelFeatures(model)
        assert '\n' not in str(error.value)


# --- what enters the head ---------------------------------------------------
CHANNELS = [4, 6, 8]


class Pyramid(nn.Module):
    """Three maps, each half as large as the one before."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, channels, 1) for channels in CHANNELS)

    def forward(self, x):
        return [layer(F.avg_pool2d(x, 4 * 2**i)) for i, layer in enumerate(self.layers)]


def with_pyramid(tmp_path, head):
    model = segmentor(tmp_path, decode_head={**HEAD, **head})
    model.backbone = Pyramid()
    return model.train()


@pytest.mark.parametrize('head, expected', [
    (dict(type='FCNHead', num_convs=1, in_channels=6, in_index=1), lambda maps: maps[1]),
    (dict(type='FCNHead', num_convs=1, in_channels=[4, 8], in_index=[0, 2], input_transform='resize_concat'),
     lambda maps: torch.cat([maps[0], F.interpolate(maps[2], scale_factor=4, mode='bilinear')], 1)),
    (dict(type='SegformerHead', in_channels=CHANNELS, in_index=[0, 1, 2]), lambda maps: maps[2]),
    (dict(type='UPerHead', in_channels=CHANNELS, in_index=[0, 1, 2], pool_scales=(1, 2)), lambda maps: maps[2])])
def test_the_map_that_enters_the_head(tmp_path, head, expected):
    """The one of its index, the concatenation, or of several the deepest; with a gradient to what made it."""
    model = with_pyramid(tmp_path, head)
    features, maps = PixelFeatures(model), model.backbone(images())
    with features.caught():
        model(images())
        taken = features.take().head_input
    torch.testing.assert_close(taken, expected(maps))
    assert taken.shape[1] == head_input_channels(features.head)
    taken.sum().backward()
    assert model.backbone.layers[head['in_index'][-1] if isinstance(head['in_index'], list) else 1].weight.grad.any()


def test_behind_a_neck_the_head_starts_from_the_necks_maps(tmp_path):
    model = with_pyramid(tmp_path, dict(type='FCNHead', num_convs=1, in_channels=5, in_index=0))
    model.neck = MODELS.build(dict(type='FPN', in_channels=CHANNELS, out_channels=5, num_outs=3))
    features, maps = PixelFeatures(model), model.neck(model.backbone(images()))
    with features.caught():
        model(images())
        torch.testing.assert_close(features.take().head_input, maps[0])


@pytest.mark.parametrize('training', [True, False])
def test_a_head_that_takes_other_maps_in_training(tmp_path, training):
    """PIDNet's, which is given a tuple in training and a map in evaluation."""
    model = segmentor(tmp_path, decode_head=dict(type='PIDHead', **{
        **HEAD, 'dropout_ratio': 0, 'loss_decode': [HEAD['loss_decode']] * 4}))
    model.backbone = nn.Conv2d(3, 8, 1)
    decisive = model.backbone(images())
    if training:
        model.backbone.register_forward_hook(lambda module, args, map: (map[:, :4], map, map[:, 4:]))
    features = PixelFeatures(model.train(training))
    with features.caught():
        model(images())
        assert torch.equal(features.take().head_input, decisive)
