"""Heads that do not take what the backbone gives."""
import pytest
import torch
from mmengine.config import Config
from mmseg.models import EncoderDecoder

from fedseg_mm.cli.train import main
from fedseg_mm.errors import FedSegError
from fedseg_mm.models import check_features, check_features_once
from tests.conftest import write_config


def model(**head) -> EncoderDecoder:
    """FastSCNN gives three maps with 16, 16 and 8 channels."""
    common = dict(num_classes=4, channels=8, norm_cfg=dict(type='BN'))
    return EncoderDecoder(
        backbone=dict(type='FastSCNN', downsample_dw_channels=(8, 8), global_in_channels=16,
                      global_block_channels=(8, 8, 16), global_block_strides=(2, 1, 1), global_out_channels=16,
                      higher_in_channels=16, lower_in_channels=16, fusion_out_channels=8, out_indices=(0, 1, 2),
                      norm_cfg=dict(type='BN'), align_corners=False),
        decode_head={**dict(type='FCNHead', in_channels=8, in_index=-1, **common), **head},
        auxiliary_head=[dict(type='FCNHead', in_channels=16, in_index=1, **common)])


def sentences(**head) -> str:
    with pytest.raises(FedSegError) as error:
        check_features(model(**head), [torch.zeros(1, channels, 4, 4) for channels in (16, 16, 8)], 'model.backbone')
    return str(error.value)


@pytest.mark.parametrize('head, sentence', [
    (dict(in_channels=16), 'model.decode_head.in_channels is 16, but model.backbone gives 3 feature maps with 16, 16, '
     '8 channels, of which it takes -1: set model.decode_head.in_channels=8'),
    (dict(in_index=3), 'model.decode_head.in_index takes map 3, but model.backbone gives 3 feature maps with 16, 16, 8 '
     'channels: give in_index from 0 to 2'),
    (dict(input_transform='resize_concat', in_channels=[16, 16], in_index=[0, 2]),
     'model.decode_head.in_channels is 32 in all, but model.backbone gives 3 feature maps with 16, 16, 8 channels, of '
     'which it takes 0, 2: set model.decode_head.in_channels=[16, 8]'),
    (dict(type='UPerHead', pool_scales=(1, 2), in_channels=[8, 16], in_index=[0, 1]),
     'set model.decode_head.in_channels=[16, 16]')])
def test_the_right_numbers_are_named(head, sentence):
    assert sentence in sentences(**head)


def test_every_head_is_looked_at():
    wrong = model(in_channels=16)
    wrong.auxiliary_head[0].in_channels = 4
    with pytest.raises(FedSegError) as error:
        check_features(wrong, [torch.zeros(1, channels, 4, 4) for channels in (16, 16, 8)], 'model.backbone')
    assert [line.split('.in_channels')[0] for line in str(error.value).splitlines()] == [
        'model.decode_head', 'model.auxiliary_head.0']


def test_what_fits_passes_and_nothing_stays_on_the_model():
    right = model().eval()
    check_features_once(right)
    assert right.backbone._forward_hooks
    with torch.no_grad():
        right(torch.zeros(1, 3, 64, 64))
    assert not right.backbone._forward_hooks
    check_features(right, [(torch.zeros(1, 8, 4, 4), torch.zeros(1, 8))], 'a ViT with class tokens')
    check_features(right, torch.zeros(1, 8, 4, 4), 'one map')


def test_a_run_says_it_before_it_trains(tiny_data, tmp_path, capsys):
    config = write_config(tiny_data, tmp_path, **{'model.decode_head.in_channels': 12})
    with pytest.raises(SystemExit) as stop:
        main([str(config)])
    assert 'model.decode_head.in_channels is 12' in stop.value.code and '=8' in stop.value.code
    assert 'Round(train)' not in capsys.readouterr().out
    assert Config.fromfile(config).model.decode_head.in_channels == 12
