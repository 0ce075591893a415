import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch.utils._python_dispatch import TorchDispatchMode

from fedseg_mm.models import BackCELoss
from fedseg_mm.models.losses import back_ce_loss

C = 6


def closed_form(logits: np.ndarray, label: np.ndarray, classes: set[int], void: int = 255):
    """Value and gradient of BackCE, pixel by pixel in float64, straight from facts about probabilities."""
    n, c, h, w = logits.shape
    total, counted, gradient = 0.0, 0, np.zeros_like(logits)
    for i, y, x in np.ndindex(n, h, w):
        if label[i, y, x] == void:
            continue
        z = logits[i, :, y, x]
        p = np.exp(z - z.max())
        p /= p.sum()
        target = int(label[i, y, x])
        if target in classes:
            loss, g = -np.log(p[target]), p - np.eye(c)[target]
        elif len(classes) == c:
            continue
        else:
            absent = np.array([k not in classes for k in range(c)])
            p_absent = p[absent].sum()
            loss, g = -np.log(p_absent), p - np.where(absent, p / p_absent, 0)
        counted += 1
        total += loss
        gradient[i, :, y, x] = g
    return total / counted, gradient / counted


def batch(seed: int = 0, void: bool = True):
    rng = np.random.RandomState(seed)
    logits = rng.normal(0, 4, (2, C, 5, 7))
    label = rng.randint(0, C, (2, 5, 7))
    label[rng.rand(*label.shape) < 0.3] = 254
    if void:
        label[rng.rand(*label.shape) < 0.2] = 255
    return logits, label


@pytest.mark.parametrize('classes', [{0}, {1, 4}, {0, 1, 2, 3, 4}, set(range(C))])
def test_value_and_gradient_equal_the_closed_form(classes):
    logits, label = batch()
    expected, expected_gradient = closed_form(logits, label, classes)
    loss = MODELS.build(dict(type='BackCELoss'))
    loss.set_annotated_classes(sorted(classes))
    z = torch.tensor(logits, requires_grad=True)
    value = loss(z, torch.tensor(label), ignore_index=255)
    value.backward()
    np.testing.assert_allclose(value.item(), expected, rtol=1e-12)
    np.testing.assert_allclose(z.grad.numpy(), expected_gradient, rtol=1e-9, atol=1e-14)


def test_hand_computed_pixel():
    # probabilities 1/2, 1/4, 1/4; class 0 annotated: an unannotated pixel has the probability 1/2
    logits = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log().view(1, 3, 1, 1)
    loss = BackCELoss()
    loss.set_annotated_classes([0])
    assert loss(logits, torch.tensor([[[254]]])).item() == pytest.approx(np.log(2), rel=1e-12)
    assert loss(logits, torch.tensor([[[0]]])).item() == pytest.approx(np.log(2), rel=1e-12)
    loss.set_annotated_classes([1])
    assert loss(logits, torch.tensor([[[254]]])).item() == pytest.approx(-np.log(0.75), rel=1e-12)


def test_all_classes_annotated_is_cross_entropy():
    logits, label = (torch.tensor(a) for a in batch())
    expected = F.cross_entropy(logits, label.where(label != 254, 255), ignore_index=255)
    assert BackCELoss()(logits, label).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_hard_pixels_in_low_precision(dtype):
    """P_absent is far below the smallest number of the type; loss and gradient stay right."""
    logits = torch.full((1, C, 1, 2), -40.0)
    logits[:, 0] = 40.0
    logits[:, 3] = -39.0
    exact = logits.to(dtype).double().requires_grad_()
    low = logits.to(dtype).requires_grad_()
    label = torch.tensor([[[254, 2]]])
    loss = BackCELoss()
    loss.set_annotated_classes([0, 2])
    for z in (exact, low):
        loss(z, label).backward()
    value = loss(low, label)
    assert value.dtype == torch.float32 and torch.isfinite(value)
    assert value.item() == pytest.approx(loss(exact, label).item(), rel=1e-4)
    torch.testing.assert_close(low.grad.double(), exact.grad, rtol=1e-2, atol=1e-4)
    assert low.grad[0, 3, 0, 0] < 0  # the likeliest absent class is pulled up


def test_pixels_named_by_mask_equal_those_labelled_254():
    logits, label = (torch.tensor(a) for a in batch())
    loss = BackCELoss()
    loss.set_annotated_classes([1, 2])
    expected = loss(logits, label)
    loss.set_unannotated(label == 254)
    assert torch.equal(loss(logits, label.where(label != 254, 255)), expected)
    loss.set_unannotated(torch.zeros(1, 5, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match='shape'):
        loss(logits, label)


def test_void_as_background():
    logits, label = batch()
    expected, _ = closed_form(logits, np.where(label == 255, 254, label), {1})
    loss = BackCELoss(void_as_background=True)
    loss.set_annotated_classes([1])
    assert loss(torch.tensor(logits), torch.tensor(label)).item() == pytest.approx(expected, rel=1e-12)


def test_class_weight_and_void():
    """Weighted mean, with void present (MMSegmentation's cross-entropy fails there)."""
    logits, label = (torch.tensor(a) for a in batch())
    weight = [0.5, 2.0, 1.0, 3.0, 1.5, 0.1]
    label_ce = label.where(label != 254, 255)
    expected = F.cross_entropy(logits, label_ce, weight=torch.tensor(weight, dtype=torch.float64), ignore_index=255)
    assert BackCELoss(class_weight=weight)(logits, label).item() == pytest.approx(expected.item(), rel=1e-12)
    # an unannotated pixel counts with the mean factor of the classes that it may be
    single = torch.tensor([[[254, 0]]])
    z = logits[:1, :, :1, :2]
    loss = BackCELoss(class_weight=weight)
    loss.set_annotated_classes([0, 1])
    each = BackCELoss(reduction='none')
    each.set_annotated_classes([0, 1])
    absent = np.mean(weight[2:])
    expected = (each(z, single)[0, 0] * torch.tensor([absent, 0.5])).sum() / (absent + 0.5)
    assert loss(z, single).item() == pytest.approx(expected.item(), rel=1e-12)


def test_class_weight_of_another_length_is_refused():
    logits, label = (torch.tensor(a) for a in batch())
    with pytest.raises(ValueError, match='class_weight has 3 entries, but there are 6 classes'):
        BackCELoss(class_weight=[1., 2., 3.])(logits, label)


def test_signature_of_mmseg_losses():
    logits, label = (torch.tensor(a) for a in batch(void=False))
    loss = BackCELoss(loss_weight=0.5, loss_name='loss_mine')
    loss.set_annotated_classes([0])
    assert loss.loss_name == 'loss_mine' and BackCELoss().loss_name == 'loss_back_ce'
    each = loss(logits, label, reduction_override='none')
    assert each.shape == label.shape
    assert loss(logits, label).item() == pytest.approx(each.mean().item())
    assert loss(logits, label, reduction_override='sum').item() == pytest.approx(each.sum().item())
    assert loss(logits, label, avg_factor=7).item() == pytest.approx(each.sum().item() / 7)
    pixels = torch.rand(label.shape, dtype=torch.float64)
    assert loss(logits, label, weight=pixels).item() == pytest.approx((each * pixels).mean().item())
    label[0, 0, 0] = 9
    assert loss(logits, label, ignore_index=9, reduction_override='none')[0, 0, 0] == 0


def test_nothing_that_counts_is_a_differentiable_zero():
    logits = torch.randn(1, C, 2, 2, requires_grad=True)
    for label in (torch.full((1, 2, 2), 255), torch.full((1, 2, 2), 254)):
        value = BackCELoss()(logits, label)
        value.backward()
        assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_wrong_class_and_wrong_label_are_refused():
    logits, label = (torch.tensor(a) for a in batch())
    loss = BackCELoss()
    loss.set_annotated_classes([C])
    with pytest.raises(ValueError, match='annotated classes'):
        loss(logits, label)
    label[0, 0, 0] = C
    loss.set_annotated_classes([0])
    with pytest.raises((IndexError, RuntimeError)):
        loss(logits, label)


def test_holds_no_state():
    loss = BackCELoss()
    loss.set_annotated_classes([1])
    assert not loss.state_dict()


@pytest.mark.parametrize('block', [1, 2 * C * 35, 10**6])
def test_images_with_sets_of_their_own_in_blocks_of_any_size(monkeypatch, block):
    """Image by image it is the loss of that image; one of them is annotated completely, one not at all."""
    monkeypatch.setitem(back_ce_loss.BLOCK, 'cpu', block)
    pairs = [batch(seed) for seed in (0, 1)]
    logits, label = (torch.tensor(np.concatenate(arrays)) for arrays in zip(*pairs))
    classes = [[2], [0, 1, 2, 3, 4, 5], [], [0, 1, 4]]
    loss = BackCELoss(reduction='sum')
    loss.set_annotated_classes(*classes)
    z = logits.clone().requires_grad_()
    value = loss(z, label)
    value.backward()
    expected = 0.0
    for i, one in enumerate(classes):
        kept = label[i:i + 1].numpy() != 255
        kept &= (label[i:i + 1].numpy() != 254) | (len(one) < C)
        mean, gradient = closed_form(logits[i:i + 1].numpy(), label[i:i + 1].numpy(), set(one))
        expected += mean * kept.sum()
        np.testing.assert_allclose(z.grad[i].numpy(), gradient[0] * kept.sum(), rtol=1e-9, atol=1e-13)
    assert value.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('gap', [200., 1e4, -1e4])
def test_absent_classes_far_from_the_annotated_ones(gap):
    """Beyond what exp() of float32 can hold, in both directions."""
    logits = torch.randn(1, C, 4, 5, generator=torch.Generator().manual_seed(0))
    logits[:, :2] += gap
    label = torch.full((1, 4, 5), 254)
    label[0, 0] = torch.tensor([0, 1, 254, 3, 0])
    loss = BackCELoss(reduction='sum')
    loss.set_annotated_classes([0, 1])
    low, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    values = [loss(z, label) for z in (low, exact)]
    for value in values:
        value.backward()
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-6, abs=1e-5)
    # scores of 10,000 are themselves known to 0.001 only
    torch.testing.assert_close(low.grad.double(), exact.grad, rtol=1e-4 if abs(gap) < 1e3 else 5e-3, atol=1e-6)


def test_gradient_of_a_sure_pixel_is_subtracted_before_it_is_rounded():
    """p - 1 of p = 0.9991: bfloat16 would round p to 1 first."""
    logits = torch.tensor([7., 0.]).view(1, 2, 1, 1).bfloat16().requires_grad_()
    BackCELoss()(logits, torch.zeros(1, 1, 1, dtype=torch.long)).backward()
    assert logits.grad[0, 0, 0, 0].item() == pytest.approx(-1 / (1 + np.exp(7)), rel=1e-2)


def test_gradients_can_be_asked_for_twice():
    logits, label = (torch.tensor(a) for a in batch())
    loss = BackCELoss()
    loss.set_annotated_classes([1, 2])
    z = logits.requires_grad_()
    value = loss(z, label)
    first, = torch.autograd.grad(value, z, retain_graph=True)
    second, = torch.autograd.grad(value, z)
    assert torch.equal(first, second)


def test_holds_the_gradient_and_little_more(monkeypatch):
    """Bytes that torch has allocated at once, forward and backward, beside the logits; an image at a time."""
    monkeypatch.setitem(back_ce_loss.BLOCK, 'cpu', 64**3)
    logits = torch.randn(8, 64, 64, 64, requires_grad=True)
    label = torch.randint(0, 64, (8, 64, 64))
    loss = BackCELoss()
    loss.set_annotated_classes(range(32))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss(logits, label).backward()
    held = np.cumsum([event.nbytes() for event in profiler.profiler.kineto_results.events()
                      if event.name() == '[memory]'])
    gradient = logits.numel() * 4
    assert gradient < held.max() < 1.5 * gradient


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_maps_that_it_makes_lie_as_the_scores_do(layout, dtype):
    """Also in low precision, where the backward pass works beside the gradient: two layouts in one pass are slow."""
    seen = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.shape == (2, C, 5, 7):
                seen.append((str(func), result.is_contiguous(memory_format=layout)))
            return result

    logits, label = (torch.tensor(a) for a in batch())
    z = logits.to(dtype).to(memory_format=layout).requires_grad_()
    loss = BackCELoss()
    loss.set_annotated_classes([1, 2])
    with Spy():
        loss(z, label).backward()
    # masks of the classes are expanded, not made
    other = [name for name, fits in seen if not fits and 'expand' not in name]
    assert len(seen) > 5 and not other, other


# --- balance ----------------------------------------------------------------
def balanced_by_loops(each, label, classes, power, weight=None, images=False):
    """Groups' means of the pixels' losses, weighed by their shares to the power; in float64."""
    each, label = each.double().numpy(), label.numpy()
    groups = {}
    for i, y, x in np.ndindex(*label.shape):
        cls = int(label[i, y, x])
        if cls == 255 or (cls not in classes and len(classes) == C):
            continue
        groups.setdefault((cls if cls in classes else 'unannotated', i * images), []).append((i, y, x))
    counted = sum(map(len, groups.values()))
    total = above = 0
    for (cls, _), places in groups.items():
        # an unannotated pixel may be any absent class, and weighs what these do on average
        own = 1 if weight is None else np.mean([weight[c] for c in range(C) if c not in classes]) if (
            cls == 'unannotated') else weight[cls]
        share = own * (len(places) / counted)**power
        total += share
        above += share * np.mean([each[place] for place in places])
    return above / total


@pytest.mark.parametrize('weight', [None, [0.5, 2.0, 1.0, 3.0, 1.5, 0.1]])
@pytest.mark.parametrize('over', ['batch', 'image'])
@pytest.mark.parametrize('power', [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize('classes', [{0}, {1, 4}, set(range(C))])
def test_groups_are_weighed_by_a_power_of_their_share(classes, power, over, weight):
    logits, label = (torch.tensor(a) for a in batch())
    each = BackCELoss(reduction='none')
    loss = BackCELoss(balance_power=power, balance_over=over, class_weight=weight)
    for one in (each, loss):
        one.set_annotated_classes(sorted(classes))
    expected = balanced_by_loops(each(logits, label), label, classes, power, weight, over == 'image')
    z = logits.clone().requires_grad_()
    value = loss(z, label)
    value.backward()
    assert value.item() == pytest.approx(expected, rel=1e-10)
    # the gradient, along one direction
    direction = torch.randn_like(logits)
    ahead, behind = (loss(logits + sign * 1e-5 * direction, label).item() for sign in (1, -1))
    assert (z.grad * direction).sum().item() == pytest.approx((ahead - behind) / 2e-5, rel=1e-5)


def test_a_small_class_counts_by_hand():
    """1 annotated pixel of 4 with the loss a, 3 unannotated with b: power 0.5 gives (a + sqrt(3) b) / (1 + sqrt(3))."""
    logits = torch.tensor([[[[3.0, 0, 0, 0]], [[0.0, 1, 1, 1]], [[0.0, 0, 0, 0]]]])
    label = torch.tensor([[[0, 254, 254, 254]]])
    loss = BackCELoss(balance_power=0.5)
    loss.set_annotated_classes([0])
    a = np.log(1 + 2 * np.exp(-3))
    b = np.log(1 + 1 / (1 + np.e))
    assert loss(logits, label).item() == pytest.approx((a + np.sqrt(3) * b) / (1 + np.sqrt(3)), rel=1e-6)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_balance_in_low_precision(dtype):
    """A group of 5 pixels beside one of 90,000, whose size float16 cannot even hold."""
    torch.manual_seed(0)
    logits = torch.randn(1, C, 300, 300).to(dtype)
    label = torch.full((1, 300, 300), 254)
    label[0, 0, :5] = 2
    loss = BackCELoss(balance_power=0.5)
    loss.set_annotated_classes([2])
    exact, low = (logits.to(one).requires_grad_() for one in (torch.float64, dtype))
    values = [loss(z, label) for z in (exact, low)]
    for value in values:
        value.backward()
    assert values[1].dtype == torch.float32
    assert values[1].item() == pytest.approx(values[0].item(), rel=1e-5)
    torch.testing.assert_close(low.grad.double(), exact.grad, rtol=1e-2, atol=1e-7)
    shown, hidden = exact.grad[0, 2, 0, :5].abs().sum(), exact.grad[0, 2].abs().sum()
    assert shown > 0.01 * hidden  # in the plain mean it has a share of 5 in 90,000


def test_power_one_is_the_plain_mean_bit_for_bit():
    logits, label = (torch.tensor(a) for a in batch())
    values = []
    for loss in (BackCELoss(), BackCELoss(balance_power=1), BackCELoss(balance_power=1.0, balance_over='image')):
        loss.set_annotated_classes([1, 4])
        z = logits.float().requires_grad_()
        loss(z, label).backward()
        values.append(z.grad)
    assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])


def test_balance_keeps_the_scale_of_sums_and_pixels():
    """Factors have the mean 1, so that other reductions and divisors mean what they do without balance."""
    logits, label = (torch.tensor(a) for a in batch())
    for classes in ([2], [0, 3]):
        mean, each, total = (BackCELoss(balance_power=0.5, reduction=how) for how in ('mean', 'none', 'sum'))
        for loss in (mean, each, total):
            loss.set_annotated_classes(classes)
        counted = (label != 255).sum()
        assert total(logits, label).item() == pytest.approx(counted.item() * mean(logits, label).item(), rel=1e-12)
        assert each(logits, label).sum().item() == pytest.approx(total(logits, label).item(), rel=1e-12)
        assert mean(logits, label, avg_factor=2 * counted).item() == pytest.approx(
            mean(logits, label).item() / 2, rel=1e-12)


def test_balance_of_a_batch_in_which_nothing_counts():
    logits = torch.randn(1, C, 2, 2, requires_grad=True)
    value = BackCELoss(balance_power=0.5)(logits, torch.full((1, 2, 2), 255))
    value.backward()
    assert value.item() == 0 and not logits.grad.any()


@pytest.mark.parametrize('arguments, sentence', [
    (dict(balance_power=1.5), 'balance_power must be a number at least 0 and at most 1, but is 1.5'),
    (dict(balance_power='high'), 'balance_power must be a number'), (dict(balance_power=-1), 'balance_power must be'),
    (dict(balance_over='class'), "balance_over must be 'batch' or 'image'")])
def test_a_balance_that_is_none_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        BackCELoss(**arguments)
