"""Losses, accuracy and resizes on the device, against float64 on the CPU."""
import pytest
import torch
from mmseg.models.losses.accuracy import accuracy as mmseg_accuracy
from torch.nn import functional as F

from fedseg_mm.engine.amp_optim_wrapper import Float32Resizes
from fedseg_mm.models import BackCELoss
from fedseg_mm.models.accuracy import accuracy
from fedseg_mm.models.losses import pixel_contrast
from fedseg_mm.models.losses.back_ce_loss import reason_against_triton
from fedseg_mm.models.losses.pixel_contrast_loss import draw_evenly

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-2}
CLASSES = 19


def batch(num_classes=CLASSES):
    torch.manual_seed(0)
    label = torch.randint(0, num_classes, (2, 33, 65))
    label[torch.rand(label.shape) < 0.3] = 254
    label[torch.rand(label.shape) < 0.2] = 255
    return 4 * torch.randn(2, num_classes, 33, 65), label


@pytest.mark.parametrize('arguments', [{}, dict(balance_power=0.5, class_weight=[1 + c / 9 for c in range(CLASSES)])],
                         ids=['plain', 'weighted'])
@pytest.mark.parametrize('annotated', [0, 1, 9, 18, 19])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('implementation', ['torch', 'triton'])
def test_back_ce_is_that_of_float64(implementation, dtype, layout, annotated, arguments, device):
    if implementation == 'triton' and device.type == 'cpu':
        pytest.skip('Triton needs a CUDA device')
    logits, label = batch()
    scores = logits.to(dtype)
    exact = scores.double().requires_grad_()
    here = scores.to(device, memory_format=layout).requires_grad_()
    values = []
    for own, z, target in (('torch', exact, label), (implementation, here, label.to(device))):
        loss = BackCELoss(implementation=own, **arguments)
        loss.set_annotated_classes(range(annotated))
        values.append(loss(z, target))
        (1000 * values[-1]).backward()
    assert values[1].item() == pytest.approx(values[0].item(), rel=1e-5)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(here.grad.double().cpu(), exact.grad, rtol=tolerance, atol=tolerance)
    assert here.grad.is_contiguous(memory_format=layout)


def test_triton_is_what_a_gpu_uses(cuda):
    for dtype in TOLERANCE:
        assert reason_against_triton(cuda, dtype) is None


@pytest.mark.parametrize('num_classes', [2, 3, 150])
def test_other_numbers_of_classes(num_classes, device):
    logits, label = batch(num_classes)
    values = []
    for z, target in ((logits.double(), label), (logits.to(device), label.to(device))):
        loss = BackCELoss()
        loss.set_annotated_classes([0], range(num_classes))
        z.requires_grad_()
        loss(z, target).backward()
        values.append(z.grad.cpu().double())
    torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
def test_contrast_is_that_of_float64(dtype, device):
    torch.manual_seed(0)
    anchors, prototypes = (F.normalize(torch.randn(n, 32), dim=1) for n in (200, 60))
    labels, classes = torch.randint(0, 5, (200, )), torch.randint(0, 5, (60, ))
    exact = anchors.to(dtype).double().requires_grad_()
    here = anchors.to(device, dtype).requires_grad_()
    expected = pixel_contrast(exact, labels, prototypes.double(), classes, 0.07)
    value = pixel_contrast(here.float(), labels.to(device), prototypes.to(device), classes.to(device), 0.07)
    for loss in (expected, value):
        loss.mean().backward()
    torch.testing.assert_close(value.double().cpu(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(here.grad.double().cpu(), exact.grad, rtol=TOLERANCE[dtype], atol=1e-4)


def test_anchors_are_drawn_evenly(device):
    labels = torch.tensor([0] * 500 + [1] * 20 + [255] * 3 + [256] * 100, device=device)
    indices, drawn = draw_evenly(labels, 60)
    chosen = labels[indices[drawn]]
    assert [(chosen == cls).sum().item() for cls in (0, 1, 255, 256)] == [20, 20, 3, 0]


@pytest.mark.parametrize('factor', [8, 16, 32, 64])
def test_a_resize_in_mixed_precision_loses_no_gradient(factor, device):
    small = torch.zeros(1, 1, 4, 4, dtype=torch.bfloat16, device=device, requires_grad=True)
    with Float32Resizes():
        large = F.interpolate(small, scale_factor=factor, mode='bilinear', align_corners=False)
    large.sum().backward()
    assert small.grad.sum().item() == pytest.approx(16 * factor**2, rel=1e-2)


def test_accuracy_is_mmsegs(device):
    logits, label = batch()
    expected = mmseg_accuracy(logits, label, ignore_index=255)
    torch.testing.assert_close(accuracy(logits.to(device), label.to(device), ignore_index=255).cpu(), expected)
