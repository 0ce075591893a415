"""Losses beside BackCE on images that are annotated in part."""
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.losses import CrossEntropyLoss, DiceLoss, LovaszLoss, OhemCrossEntropy, TverskyLoss
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from fedseg_mm.models import hide_unannotated_pixels
from fedseg_mm.models.partly_annotated import try_loss
from tests.conftest import tiny_config

SIZE = 48, 64


def segmentor(*losses, **head):
    cfg = tiny_config('.', '.').model
    cfg.decode_head.loss_decode = list(losses)
    cfg.decode_head.update(head)
    return MODELS.build(cfg)


class Scores(torch.nn.Module):
    """A head's losses on given scores and labels, as in a client's step."""

    def __init__(self, *losses, **head):
        super().__init__()
        self.model = segmentor(*losses, **head)
        self.decode_head = self.model.decode_head
        self.decode_head.align_corners = False

    def forward(self, inputs, data_samples, mode):
        return self.decode_head.loss_by_feat(inputs, data_samples)


def losses_of(module: Scores, scores: torch.Tensor, labels: torch.Tensor) -> dict:
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
    hiding = hide_unannotated_pixels(module)
    try:
        return module(inputs=scores, data_samples=samples, mode='loss')
    finally:
        hiding.remove()


@pytest.fixture
def scores() -> torch.Tensor:
    return torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.fixture
def labels() -> torch.Tensor:
    label = torch.randint(2, (2, 6, 8), generator=torch.Generator().manual_seed(1))
    label[0, :3] = 254
    label[1, :, :5] = 254
    return label


def dice(scores, labels, square: bool) -> torch.Tensor:
    """V-Net's and the naive Dice of the softmax, over annotated pixels, image by image, written out."""
    values = []
    for score, label in zip(scores.detach().double(), labels):
        keep = label != 254
        probability = score[:, keep].softmax(0)
        target = F.one_hot(label[keep], 4).T.double()
        overlap = (probability * target).sum()
        if square:
            values.append(1 - 2 * overlap / ((probability**2).sum() + (target**2).sum() + 2e-3))
        else:
            values.append(1 - (2 * overlap + 1e-3) / (probability.sum() + target.sum() + 1e-3))
    return torch.stack(values)


@pytest.mark.parametrize('naive', [False, True])
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_dice_sees_annotated_pixels_only(scores, labels, naive, reduction):
    module = Scores(dict(type='DiceLoss', use_sigmoid=False, naive_dice=naive, reduction=reduction, loss_weight=3.))
    loss = losses_of(module, scores, labels.clone())['loss_dice']
    expected = 3 * getattr(dice(scores, labels, square=not naive), reduction)()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    gradient, = torch.autograd.grad(loss, scores)
    hidden = (labels == 254)[:, None].expand_as(scores)
    assert (gradient[hidden] == 0).all() and (gradient[~hidden] != 0).any()


def test_dice_without_unannotated_pixels_is_mmsegmentations_bit_for_bit(scores, labels):
    """Void included, which it takes for pixels of no class."""
    labels = labels.masked_fill(labels == 254, 255)
    module = Scores(dict(type='DiceLoss'))
    expected = DiceLoss()(scores, labels, ignore_index=255)
    assert torch.equal(losses_of(module, scores, labels.clone())['loss_dice'], expected)


def test_dice_where_an_image_has_no_annotated_pixel(scores, labels):
    labels[0] = 254
    loss = losses_of(Scores(dict(type='DiceLoss', use_sigmoid=False)), scores, labels.clone())['loss_dice']
    torch.testing.assert_close(loss.double(), dice(scores[1:], labels[1:], square=True).sum() / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('loss, head', [
    (dict(type='LovaszLoss', reduction='none'), {}), (dict(type='LovaszLoss', per_image=True), {}),
    (dict(type='DiceLoss'), {}), (dict(type='TverskyLoss'), {}),
    (dict(type='CrossEntropyLoss', use_sigmoid=True), {}),
    (dict(type='CrossEntropyLoss', use_sigmoid=True), dict(num_classes=2, out_channels=1, threshold=0.3))])
@pytest.mark.parametrize('annotated', [0, 1])
def test_a_batch_with_nothing_annotated(scores, labels, loss, head, annotated):
    """Or with a single pixel: the loss is finite, and so is its gradient."""
    labels[:] = 254
    labels[0, 0, :annotated] = 1
    scores = scores[:, :head.get('out_channels', 4)]
    module = Scores(loss, **head)
    value, = (value for name, value in losses_of(module, scores, labels.clone()).items() if 'loss' in name)
    gradient, = torch.autograd.grad(value.mean(), scores)
    assert value.isfinite().all() and gradient.isfinite().all()
    assert (gradient[:, :, 1:] == 0).all() or loss['type'] == 'DiceLoss'


def test_lovasz_leaves_out_images_without_annotated_pixels(scores, labels):
    labels[0] = 254
    loss = losses_of(Scores(dict(type='LovaszLoss', per_image=True)), scores, labels.clone())['loss_lovasz']
    expected = LovaszLoss(per_image=True)(scores[1:], labels[1:].masked_fill(labels[1:] == 254, 255), ignore_index=255)
    assert torch.equal(loss, expected)


def test_losses_are_as_before_afterwards(scores, labels):
    module = Scores(dict(type='DiceLoss'), dict(type='LovaszLoss', reduction='none'))
    losses_of(module, scores, labels.clone())
    assert all('forward' not in vars(loss) for loss in module.decode_head.loss_decode)


@pytest.mark.parametrize('loss, fails, fails_with_void, learns', [
    (TverskyLoss(), False, False, False), (LovaszLoss(reduction='none'), False, False, False),
    (CrossEntropyLoss(), False, False, False), (CrossEntropyLoss(use_sigmoid=True), False, False, False),
    (DiceLoss(), False, False, True), (CrossEntropyLoss(class_weight=[1.] * 4), False, True, False),
    (OhemCrossEntropy(), True, True, False)])
def test_a_loss_is_tried(loss, fails, fails_with_void, learns):

    trial = try_loss(segmentor(dict(type='BackCELoss')).decode_head, loss)
    assert (trial.error is not None, trial.error_with_void is not None, trial.learns_void) == (
        fails, fails_with_void, learns)
