"""The losses, on batches of any kind, against float64 and the equations as they stand."""
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedseg_mm.models import BackCELoss, PixelContrastLoss
from fedseg_mm.models.losses import back_ce_loss
from tests.test_models.test_pixel_contrast_loss import by_definition

DTYPES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}
VOID, UNANNOTATED = 255, 254


@st.composite
def batches(draw):
    """Scores (N, C, H, W), labels (N, H, W), and the annotated classes of all images or of each."""
    images, classes, height, width = draw(st.tuples(*map(st.integers, (1, 2, 1, 1), (3, 6, 4, 4))))
    rng = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(list(DTYPES)))
    scores = rng.normal(0, draw(st.sampled_from([0.1, 3, 30])), (images, classes, height, width))
    some = st.sets(st.integers(0, classes - 1))
    sets = draw(st.lists(some, min_size=images, max_size=images) | some.map(lambda one: [one]) | st.just([None]))
    values = draw(st.lists(st.sampled_from([*range(classes), UNANNOTATED, VOID]), min_size=1))
    return torch.tensor(scores).to(dtype), torch.tensor(rng.choice(values, (images, height, width))), sets


def reference(scores, label, sets, weights=None, power=1.0, over='batch', unannotated=None, background=False):
    """BackCE as the paper and the docstrings have it, pixel by pixel; the loss, and how many pixels count."""
    images, classes, _, _ = scores.shape
    groups: dict = {}
    for n, y, x in np.ndindex(*label.shape):
        annotated = set(range(classes)) if sets[n % len(sets)] is None else set(sets[n % len(sets)])
        given_class = int(label[n, y, x])
        hidden = given_class == UNANNOTATED or (unannotated is not None and bool(unannotated[n, y, x])) or (
            background and given_class == VOID)
        if given_class == VOID and not hidden:
            continue
        possible = {given_class} if not hidden and given_class in annotated else set(range(classes)) - annotated
        if not possible:
            continue
        z = scores[n, :, y, x]
        loss = z.logsumexp(0) - z[sorted(possible)].logsumexp(0)
        factor = 1.0 if weights is None else float(np.mean([weights[c] for c in possible]))
        group = given_class if not hidden and given_class in annotated else 'hidden', n if over == 'image' else 0
        groups.setdefault(group, []).append((factor, loss))
    counted = sum(map(len, groups.values()))
    if not counted:
        return scores.sum() * 0, 0
    above = below = 0.0
    for members in groups.values():
        share = (len(members) / counted)**(power - 1)
        above = above + share * sum(factor * loss for factor, loss in members)
        below += share * sum(factor for factor, _ in members)
    return above / below, counted


@given(batches(), st.data())
def test_back_ce_is_that_of_the_definition(batch, data):
    """Value and gradient, in every precision."""
    scores, label, sets = batch
    classes = scores.shape[1]
    options = dict(
        balance_power=data.draw(st.sampled_from([1.0, 0.5, 0.0])), balance_over=data.draw(st.sampled_from(
            ['batch', 'image'])), void_as_background=data.draw(st.booleans()),
        class_weight=data.draw(st.none() | st.lists(st.floats(0.1, 3), min_size=classes, max_size=classes)))
    mask = data.draw(st.none() | st.builds(lambda seed: torch.tensor(np.random.RandomState(seed).rand(
        *label.shape) < 0.3), st.integers(0, 99)))
    loss = BackCELoss(**options)
    loss.set_annotated_classes(*sets)
    loss.set_unannotated(mask)
    low, exact = scores.clone().requires_grad_(), scores.double().requires_grad_()
    value = loss(low, label)
    expected, counted = reference(exact, label, sets, options['class_weight'], options['balance_power'],
                                  options['balance_over'], mask, options['void_as_background'])
    for one in (value, expected):
        one.backward()
    tolerance = DTYPES[scores.dtype]
    torch.testing.assert_close(value.double(), expected, rtol=min(tolerance, 1e-4), atol=min(tolerance, 1e-5))
    torch.testing.assert_close(low.grad.double(), exact.grad, rtol=tolerance,
                               atol=min(tolerance, 1e-3) / max(counted, 1))


@given(batches(), st.data())
def test_back_ce_of_any_finite_scores_is_no_nan(batch, data):
    """As far apart as the type can say; a loss may be too great for it, and a gradient never is."""
    scores, label, sets = batch
    limit = torch.finfo(scores.dtype)
    extremes = torch.tensor([limit.max, limit.min, limit.tiny, 0.0, 1.0, limit.max / 2], dtype=scores.dtype)
    rng = np.random.RandomState(data.draw(st.integers(0, 2**32 - 1)))
    scores = torch.where(torch.tensor(rng.rand(*scores.shape) < 0.6), extremes[torch.tensor(rng.randint(
        0, 6, scores.shape))], scores).requires_grad_()
    loss = BackCELoss(balance_power=data.draw(st.sampled_from([1.0, 0.5])))
    loss.set_annotated_classes(*sets)
    value = loss(scores, label)
    value.backward()
    assert not value.isnan() and scores.grad.isfinite().all()
    assert value >= 0 and scores.grad.abs().max() <= 1


@given(batches(), st.integers(1, 40))
def test_back_ce_is_the_same_in_blocks_of_any_size(batch, size):
    scores, label, sets = batch
    found = []
    for block in (size, 2**21):
        back_ce_loss.BLOCK['cpu'], kept = block, back_ce_loss.BLOCK['cpu']
        try:
            loss = BackCELoss()
            loss.set_annotated_classes(*sets)
            z = scores.clone().requires_grad_()
            loss(z, label).backward()
            found.append(z.grad)
        finally:
            back_ce_loss.BLOCK['cpu'] = kept
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)


@st.composite
def contrasts(draw):
    """Embeddings (N, D, h, w), their labels, prototypes (P, D) and theirs."""
    images, size, height, width, prototypes = draw(st.tuples(*map(st.integers, (1, 1, 1, 1, 0), (2, 5, 3, 3, 6))))
    rng = np.random.RandomState(draw(st.integers(0, 2**32 - 1)))
    values = draw(st.lists(st.sampled_from([0, 1, 2, 7, UNANNOTATED, VOID]), min_size=1))
    return (torch.tensor(rng.normal(0, 1, (images, size, height, width))),
            torch.tensor(rng.choice(values, (images, height, width))),
            torch.tensor(rng.normal(0, 1, (prototypes, size))),
            torch.tensor(rng.choice([0, 1, 2, 7], prototypes), dtype=torch.long))


@given(contrasts(), st.sampled_from([0.05, 0.07, 1.0, 10.0]))
def test_pixel_contrast_is_that_of_the_definition(batch, temperature):
    embeddings, labels, prototypes, prototype_labels = batch
    mine, exact = (embeddings.clone().requires_grad_() for _ in range(2))
    value = PixelContrastLoss(temperature)(mine, labels, prototypes, prototype_labels)
    value.backward()
    if not torch.isin(labels, prototype_labels).any():
        assert value == 0 and not mine.grad.any()
        return
    expected = by_definition(exact, labels, prototypes, prototype_labels, temperature)
    torch.testing.assert_close(value, torch.as_tensor(expected), rtol=1e-9, atol=1e-12)
    if isinstance(expected, torch.Tensor) and expected.requires_grad:
        expected.backward()
        torch.testing.assert_close(mine.grad, exact.grad, rtol=1e-6, atol=1e-9)


@given(contrasts(), st.sampled_from(list(DTYPES)), st.integers(0, 2**32 - 1))
def test_pixel_contrast_of_any_finite_embeddings_is_no_nan(batch, dtype, seed):
    """Zeros and the greatest numbers of the type among them; a gradient may be too great for half precision."""
    embeddings, labels, prototypes, prototype_labels = batch
    limit, rng = torch.finfo(dtype), np.random.RandomState(seed)
    extremes = torch.tensor([0.0, limit.max, limit.min, limit.tiny], dtype=dtype)
    embeddings, prototypes = (torch.where(torch.tensor(rng.rand(*one.shape) < 0.6), extremes[torch.tensor(rng.randint(
        0, 4, one.shape))], one.to(dtype)) for one in (embeddings, prototypes))
    embeddings.requires_grad_()
    value = PixelContrastLoss()(embeddings, labels, prototypes, prototype_labels)
    value.backward()
    assert value.isfinite() and not embeddings.grad.isnan().any()
    if dtype not in (torch.float16, torch.bfloat16):
        assert embeddings.grad.isfinite().all()
    zeros = (embeddings == 0).all(1, keepdim=True).expand_as(embeddings)
    assert embeddings.grad[zeros].abs().max() <= 2 / 0.07 if zeros.any() else True
