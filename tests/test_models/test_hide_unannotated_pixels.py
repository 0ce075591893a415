import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample, build_pixel_sampler

from fedseg_mm.models import hide_unannotated_pixels
from tests.conftest import tiny_config


def segmentor(tmp_path, losses):
    model = tiny_config(tmp_path, tmp_path).model
    model.decode_head.loss_decode = losses
    return MODELS.build(model)


def samples(label):
    sample = SegDataSample()
    sample.gt_sem_seg = PixelData(data=label.clone()[None])
    return [sample, sample.clone()]


def test_stock_consumers_see_void_and_back_ce_sees_unannotated(tmp_path):
    """OHEM, cross-entropy and accuracy run beside BackCE, and do not count unannotated pixels."""
    model = segmentor(tmp_path, [dict(type='CrossEntropyLoss', avg_non_ignore=True), dict(type='BackCELoss')])
    model.eval()
    ce, back_ce = model.decode_head.loss_decode
    back_ce.set_annotated_classes([1])
    label = torch.full((48, 64), 254)
    label[:8] = 1
    label[40:] = 255
    torch.manual_seed(0)
    images = torch.randn(2, 3, 48, 64)
    logits = []
    model.decode_head.conv_seg.register_forward_hook(lambda module, args, output: logits.append(output))
    handle = hide_unannotated_pixels(model)
    with torch.no_grad():
        losses = model(images, samples(label), mode='loss')
        full = torch.nn.functional.interpolate(logits[-1], size=(48, 64), mode='bilinear')
        for_ce, for_back_ce = label.where(label != 254, 255).expand(2, -1, -1), label.expand(2, -1, -1)
        back_ce.set_unannotated(None)
        torch.testing.assert_close(losses['decode.loss_ce'], ce(full, for_ce, ignore_index=255))
        torch.testing.assert_close(losses['decode.loss_back_ce'], back_ce(full, for_back_ce, ignore_index=255))
        accuracy = (full.argmax(1) == 1)[:, :8].float().mean() * 100
        torch.testing.assert_close(losses['decode.acc_seg'].float().squeeze(), accuracy)
    handle.remove()


def test_ohem_chooses_annotated_pixels_and_leaves_back_ce_whole(tmp_path):
    """OHEM sees void where pixels are unannotated and gives them no weight; BackCE must count them all the same."""
    model = segmentor(tmp_path, dict(type='BackCELoss'))
    model.decode_head.sampler = build_pixel_sampler(dict(type='OHEMPixelSampler', thresh=0.7, min_kept=10),
                                                    context=model.decode_head)
    hide_unannotated_pixels(model)
    label = torch.full((48, 64), 254)
    label[:8] = 2
    logits = []

    def keep(loss, args):
        args[0].retain_grad()
        logits.append(args[0])

    loss = model.decode_head.loss_decode
    loss.set_annotated_classes([2])
    loss.register_forward_pre_hook(keep)
    model(torch.randn(2, 3, 48, 64), samples(label), mode='loss')['decode.loss_back_ce'].backward()
    gradient = logits[0].grad.abs().sum(1)
    assert (gradient[:, 8:] > 0).all()  # every unannotated pixel
    assert (gradient[:, :8] > 0).any()


def test_other_modes_are_left_alone(tmp_path):
    model = segmentor(tmp_path, dict(type='BackCELoss')).eval()
    hide_unannotated_pixels(model)
    assert model(torch.randn(1, 3, 48, 64)).shape[1] == 4
