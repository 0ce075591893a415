import math

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS

from fedseg_mm.models import PixelContrastLoss
from fedseg_mm.models.losses import pixel_contrast_loss

D = 5


def by_definition(embeddings, labels, prototypes, prototype_labels, temperature):
    """The formula of facts/fedseg.md, anchor by anchor and prototype by prototype."""
    total, anchors = 0.0, 0
    prototypes = [p / p.norm() for p in prototypes]
    for n, y, x in np.ndindex(*labels.shape):
        positives = [p for p, c in zip(prototypes, prototype_labels) if c == labels[n, y, x]]
        negatives = [p for p, c in zip(prototypes, prototype_labels) if c != labels[n, y, x]]
        if not positives:
            continue
        anchor = embeddings[n, :, y, x] / embeddings[n, :, y, x].norm()
        excluded = sum((anchor @ other / temperature).exp() for other in negatives)
        for p in positives:
            own = (anchor @ p / temperature).exp()
            total = total - (own / (own + excluded)).log() / len(positives)
        anchors += 1
    return total / anchors


def batch(seed=0):
    """Two images of 3x4 pixels with classes 0, 1, 2, 4, unannotated and void pixels; no prototype is of class 4."""
    rng = np.random.RandomState(seed)
    labels = rng.choice([0, 1, 2, 4, 254, 255], (2, 3, 4))
    return (torch.tensor(rng.normal(0, 1, (2, D, 3, 4)), requires_grad=True), torch.tensor(labels),
            torch.tensor(rng.normal(0, 1, (6, D))), torch.tensor([0, 2, 1, 0, 1, 0]))


@pytest.mark.parametrize('temperature', [0.07, 1.0])
def test_value_and_gradient_equal_the_definition(temperature):
    embeddings, *others = batch()
    reference = embeddings.detach().clone().requires_grad_()
    expected = by_definition(reference, *others, temperature)
    expected.backward()
    loss = MODELS.build(dict(type='PixelContrastLoss', temperature=temperature))
    value = loss(embeddings, *others)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(embeddings.grad, reference.grad, rtol=1e-9, atol=1e-12)


def test_hand_computed_pixel():
    """One anchor at (image 1, row 2, column 3): -log(e^2 / (e^2 + e^0)); no other pixel has a gradient."""
    embeddings = torch.randn(2, 2, 3, 4)
    embeddings[1, :, 2, 3] = torch.tensor([3., 0.])
    embeddings.requires_grad_()
    labels = torch.full((2, 3, 4), 254)
    labels[1, 2, 3] = 7
    value = PixelContrastLoss(temperature=0.5)(embeddings, labels, torch.eye(2), torch.tensor([7, 9]))
    value.backward()
    assert value.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)
    assert embeddings.grad.abs().sum(1).nonzero().tolist() == [[1, 2, 3]]


def test_nothing_but_the_anchors_class_costs_nothing():
    embeddings, labels, prototypes, _ = batch()
    for dtype in (torch.float32, torch.float64):
        own = embeddings.detach().to(dtype).requires_grad_()
        value = PixelContrastLoss()(own, labels, prototypes.to(dtype), torch.full((6, ), 2))
        value.backward()
        assert value.item() == 0 and torch.equal(own.grad, torch.zeros_like(own))


@pytest.mark.parametrize('prototype_labels', [[5, 6, 7, 8, 9, 10], []])
def test_no_anchor_is_a_differentiable_zero(prototype_labels):
    """Classes without a prototype, 254 and 255 are no anchors."""
    embeddings, labels, prototypes, _ = batch()
    value = PixelContrastLoss()(embeddings, labels, prototypes[:len(prototype_labels)],
                                torch.tensor(prototype_labels, dtype=torch.long))
    value.backward()
    assert value.item() == 0 and torch.equal(embeddings.grad, torch.zeros_like(embeddings))


def test_lengths_do_not_matter():
    embeddings, labels, prototypes, prototype_labels = batch()
    loss = PixelContrastLoss()
    expected = loss(embeddings, labels, prototypes, prototype_labels)
    other = loss(embeddings * torch.rand(2, 1, 3, 4).add(0.1), labels, prototypes * torch.rand(6, 1).add(0.1),
                 prototype_labels)
    assert other.item() == pytest.approx(expected.item(), rel=1e-10)


def test_labels_of_any_integer_type():
    embeddings, labels, *prototypes = batch()
    expected = PixelContrastLoss()(embeddings, labels, *prototypes).item()
    assert PixelContrastLoss()(embeddings, labels.to(torch.uint8), *prototypes).item() == pytest.approx(expected)


def test_loss_weight():
    one, tenth = (PixelContrastLoss(loss_weight=weight)(*batch()).item() for weight in (1.0, 0.1))
    assert tenth == pytest.approx(0.1 * one)


@pytest.mark.parametrize('max_anchors, expected', [
    (40, [10, 10, 10, 2]),  # a share each, though the last class has fewer
    (3, [1, 1, 1, 1]),  # no class is left out
    (4096, [100, 60, 30, 2])])
def test_anchors_are_split_evenly_over_the_classes(monkeypatch, max_anchors, expected):
    """Counted where anchors are contrasted; no pixel is an anchor twice, and each can be one."""
    labels = torch.tensor([8] * 100 + [0] * 30 + [254] * 8 + [5] * 2 + [3] * 60 + [255] * 40)
    angle = torch.arange(240.) / 240
    embeddings = torch.stack([angle.cos(), angle.sin()])[None].view(1, 2, 12, 20)
    seen, given = [], []
    draw, draws = pixel_contrast_loss.draw_evenly, []

    def keep_draw(*arguments):
        draws.append(draw(*arguments))
        return draws[-1]

    def keep(anchors, classes, prototypes, *others):
        drawn = draws[-1][1]
        seen.append(torch.atan2(anchors[:, 1], anchors[:, 0]).mul(240).round().long()[drawn])
        given.append(classes[drawn])
        return torch.where(drawn, anchors.sum(1), torch.nan)  # what is not drawn does not count

    monkeypatch.setattr(pixel_contrast_loss, 'draw_evenly', keep_draw)
    monkeypatch.setattr(pixel_contrast_loss, 'pixel_contrast', keep)
    loss = PixelContrastLoss(max_anchors=max_anchors)
    for _ in range(150):
        value = loss(embeddings, labels.view(1, 12, 20), torch.randn(4, 2), torch.tensor([0, 3, 5, 8]))
        assert value.item() == pytest.approx(embeddings.flatten(2)[0, :, seen[-1]].sum(0).mean().item(), rel=1e-5)
    for pixels, classes in zip(seen, given):
        assert len(set(pixels.tolist())) == len(pixels)
        assert torch.equal(classes, labels[pixels])
        assert [int((labels[pixels] == cls).sum()) for cls in (8, 3, 0, 5)] == expected
    drawn = torch.cat(seen).bincount(minlength=240)
    assert not drawn[labels >= 254].any()
    if max_anchors == 40:  # 15 of 150 times each on average, with a deviation of 3.7
        assert 2 < drawn[:100].min() and drawn[:100].max() < 33


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
def test_under_autocast_it_is_computed_in_float32(dtype):
    embeddings, labels, prototypes, prototype_labels = batch()
    low = embeddings.detach().to(dtype).requires_grad_()
    exact = low.detach().double().requires_grad_()
    prototypes = prototypes.float()
    expected = by_definition(exact, labels, prototypes.double(), prototype_labels, 0.07)
    expected.backward()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = PixelContrastLoss()(low, labels, prototypes, prototype_labels)
    value.backward()
    assert value.dtype == torch.float32 and low.grad.dtype == dtype
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(low.grad.double(), exact.grad, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-5)


def test_nonsense_is_refused():
    for arguments in (dict(temperature=0), dict(temperature=float('nan')), dict(max_anchors=0)):
        with pytest.raises(ValueError, match='must be positive'):
            PixelContrastLoss(**arguments)


def test_many_prototypes_are_contrasted_in_blocks(monkeypatch):
    """Equal values and gradients."""
    embeddings, *others = batch()
    loss = PixelContrastLoss(temperature=0.3)
    expected = loss(embeddings, *others)
    gradient, = torch.autograd.grad(expected, embeddings)
    sizes, contrast = [], pixel_contrast_loss.pixel_contrast
    monkeypatch.setattr(pixel_contrast_loss, 'SIMILARITIES', 20)
    monkeypatch.setattr(pixel_contrast_loss, 'pixel_contrast',
                        lambda anchors, *rest: sizes.append(len(anchors)) or contrast(anchors, *rest))
    value = loss(embeddings, *others)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(value, embeddings)[0], gradient, rtol=1e-9, atol=1e-12)
    assert set(sizes) == {3}  # 20 pairs with 6 prototypes
