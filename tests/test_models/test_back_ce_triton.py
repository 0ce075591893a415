"""BackCE's Triton kernels, run by Triton's interpreter on a CPU, against torch's operations in float64."""
import importlib
import os
import subprocess
import sys

import pytest
import torch

from fedseg_mm.errors import FedSegError
from fedseg_mm.models import BackCELoss
from fedseg_mm.models.losses import back_ce, back_ce_loss
from tests.conftest import ROOT

pytest.importorskip('triton', reason='needs Triton, which comes with torch for CUDA; beside torch for a CPU: '
                    'pip install --no-deps triton')

LAYOUTS = (torch.contiguous_format, torch.channels_last)
#: Of values and gradients, absolute and relative.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-2}


@pytest.fixture(scope='module', autouse=True)
def kernels():
    """The kernels' module, interpreted whatever imported it before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TRITON_INTERPRET', '1')
        from fedseg_mm.models.losses import back_ce_triton
        module = importlib.reload(back_ce_triton)
        assert module.is_interpreted()
        back_ce_loss.reason_against_triton.cache_clear()
        yield module
    importlib.reload(module)
    back_ce_loss.reason_against_triton.cache_clear()


@pytest.fixture
def runs(kernels, monkeypatch):
    """How often the forward and backward passes went through the kernels."""
    for dtype in TOLERANCE:  # the trial is none of them
        assert back_ce_loss.reason_against_triton(torch.device('cpu'), dtype) is None
    counted = dict(forward=0, backward=0)
    for name in counted:
        kernel = getattr(kernels, f'_{name}')

        class Counting:
            def __getitem__(self, grid, name=name, kernel=kernel):
                counted[name] += 1
                return kernel[grid]

        monkeypatch.setattr(kernels, f'_{name}', Counting())
    return counted


def batch(num_classes: int, void: bool = True, size=(5, 7), images: int = 2):
    torch.manual_seed(0)
    label = torch.randint(0, num_classes, (images, *size))
    label[torch.rand(label.shape) < 0.3] = 254
    if void:
        label[torch.rand(label.shape) < 0.2] = 255
    return 4 * torch.randn(images, num_classes, *size), label


def assert_equals_float64(loss: BackCELoss, logits: torch.Tensor, label: torch.Tensor, rtol=None, atol=None) -> None:
    """Value and gradient of the kernels, of the scores as they are; the reference is torch's operations."""
    exact = logits.detach().double().requires_grad_()
    mine = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    values = []
    for implementation, scores in (('torch', exact), ('triton', mine)):
        loss.implementation = implementation
        values.append(loss(scores, label))
        # pixels differ in what they count, as under a sum with weights
        (values[-1] * torch.linspace(0.5, 2, values[-1].numel()).view_as(values[-1])).sum().backward()
    rtol, atol = (TOLERANCE[logits.dtype] if given is None else given for given in (rtol, atol))
    assert values[1].dtype == torch.float32  # whatever the scores: they are not rounded again
    torch.testing.assert_close(values[1].double(), values[0], rtol=1e-5, atol=atol)
    assert mine.grad.dtype == logits.dtype and mine.grad.stride() == logits.stride()
    torch.testing.assert_close(mine.grad.double(), exact.grad, rtol=rtol, atol=atol)


@pytest.mark.parametrize('void', [False, True])
@pytest.mark.parametrize('num_classes, annotated', [(2, 1), (2, 2), (3, 1), (3, 2), (6, 0), (6, 4), (19, 1), (19, 9),
                                                    (19, 18), (19, 19)])
@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_values_and_gradients(num_classes, annotated, void, dtype, layout, runs):
    logits, label = batch(num_classes, void)
    loss = BackCELoss(reduction='none')
    loss.set_annotated_classes(range(annotated))
    assert_equals_float64(loss, logits.to(dtype).to(memory_format=layout), label)
    assert runs == dict(forward=1, backward=1)


@pytest.mark.parametrize('annotated, dtype, layout, void', [
    (1, torch.float32, LAYOUTS[0], True), (75, torch.bfloat16, LAYOUTS[1], False),
    (149, torch.float16, LAYOUTS[0], True), (150, torch.float32, LAYOUTS[1], False)])
def test_as_many_classes_as_ade20k(annotated, dtype, layout, void):
    logits, label = batch(150, void, (4, 5), images=1)
    loss = BackCELoss(reduction='none')
    loss.set_annotated_classes(range(annotated))
    assert_equals_float64(loss, logits.to(dtype).to(memory_format=layout), label)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('block', [8, 16, 64])
def test_images_with_sets_of_their_own_in_programs_of_any_size(layout, block, kernels, monkeypatch):
    """One of them is annotated completely, one not at all; a pixel's program knows its image."""
    monkeypatch.setattr(kernels, 'PIXELS', block)
    monkeypatch.setattr(kernels, 'PIXELS_APART', block)
    logits, label = batch(6, images=4)
    loss = BackCELoss(reduction='none')
    loss.set_annotated_classes([2], range(6), [], [0, 1, 4])
    assert_equals_float64(loss, logits.to(memory_format=layout), label)


@pytest.mark.parametrize('scores', [
    lambda z: z[:, :, :, 1:6], lambda z: z[:, :, 1:], lambda z: z[:, 2:], lambda z: z.transpose(2, 3),
    lambda z: z[..., :1], lambda z: z[:, :, :1], lambda z: z[:1].expand(2, -1, -1, -1)])
def test_scores_that_are_a_part_of_others(scores):
    logits, label = batch(6)
    part = scores(logits)
    label = torch.where(label < 4, label, 254)[:, :1, :1].expand(-1, *part.shape[2:])
    results = []
    for implementation in ('torch', 'triton'):
        z = part.detach().requires_grad_()
        loss, _ = back_ce(z, label, torch.arange(part.shape[1]) < 2, implementation=implementation)
        results += [loss, *torch.autograd.grad(loss.sum(), z)]
    for ours, theirs in zip(results[2:], results):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('arguments', [
    dict(class_weight=[0.5, 2.0, 1.0, 3.0, 1.5, 0.1]), dict(balance_power=0.5), dict(void_as_background=True),
    dict(balance_power=0.0, balance_over='image', class_weight=[0.5, 2.0, 1.0, 3.0, 1.5, 0.1])])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_weights_balance_and_means_are_around_the_kernels(arguments, reduction, runs):
    logits, label = batch(6)
    loss = BackCELoss(reduction=reduction, **arguments)
    loss.set_annotated_classes([0, 3])
    loss.set_unannotated(label == 254)
    assert_equals_float64(loss, logits, label.where(label != 254, 255), atol=1e-4 if reduction == 'sum' else 1e-5)
    assert runs == dict(forward=1, backward=1)


@pytest.mark.parametrize('gap', [200., 1e4, -1e4])
def test_absent_classes_far_from_the_annotated_ones(gap):
    """Beyond what exp() of float32 can hold, in both directions."""
    logits, label = batch(6)
    logits[:, :2] += gap
    loss = BackCELoss(reduction='none')
    loss.set_annotated_classes([0, 1])
    # scores of 10,000 are themselves known to 0.001 only
    rtol, atol = (1e-4, 2e-5) if abs(gap) < 1e3 else (5e-3, 2e-3)
    assert_equals_float64(loss, logits, label, rtol, atol)


@pytest.mark.parametrize('dtype', TOLERANCE)
def test_hard_and_sure_pixels(dtype):
    """P_absent is below the smallest number of the type, and P - 1 is far below P."""
    logits = torch.full((1, 6, 1, 3), -40.0)
    logits[:, 0] = 40.0
    logits[:, 3] = -39.0
    logits[0, :, 0, 2] = torch.tensor([-20., 15., -20., -20., 15., -20.])
    label = torch.tensor([[[254, 2, 254]]])
    exact, z = logits.to(dtype).double().requires_grad_(), logits.to(dtype).requires_grad_()
    for implementation, scores in (('triton', z), ('torch', exact)):
        loss = BackCELoss(implementation=implementation, reduction='sum')
        loss.set_annotated_classes([0, 2])
        loss(scores, label).backward()
    torch.testing.assert_close(z.grad.double(), exact.grad, rtol=1e-2, atol=1e-12 if dtype != torch.float16 else 1e-7)
    assert z.grad[0, 3, 0, 0] < 0  # the likeliest absent class is pulled up
    if dtype != torch.float16:  # it holds no number that small
        assert z.grad[0, 1, 0, 2] < 0  # and so is it where it is all but certain


def test_scores_without_bounds():
    """A class ruled out by -inf has no gradient; NaN and +inf stay visible, so that the update is left out."""
    logits, label = batch(6, void=False)
    logits[:, 4] = -torch.inf
    loss = BackCELoss(reduction='none')
    loss.set_annotated_classes([0, 1])
    assert_equals_float64(loss, logits, label.masked_fill(label == 4, 254))
    for value in (torch.nan, torch.inf):
        logits[0, 2, 1, 1] = value
        for implementation in ('torch', 'triton'):
            loss.implementation = implementation
            z = logits.clone().requires_grad_()
            loss(z, torch.full_like(label, 254)).sum().backward()
            assert not z.grad[0, :, 1, 1].isfinite().all() and z.grad[1].isfinite().all()


def test_gradients_can_be_asked_for_twice():
    logits, label = batch(6)
    loss = BackCELoss(implementation='triton')
    loss.set_annotated_classes([1, 2])
    z = logits.requires_grad_()
    value = loss(z, label)
    first, = torch.autograd.grad(value, z, retain_graph=True)
    second, = torch.autograd.grad(value, z)
    assert torch.equal(first, second)


def test_nothing_that_counts_is_a_differentiable_zero():
    logits = torch.randn(1, 6, 2, 2, requires_grad=True)
    for label in (torch.full((1, 2, 2), 255), torch.full((1, 2, 2), 254)):
        value = BackCELoss(implementation='triton')(logits, label)
        value.backward()
        assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


# --- which of the two -------------------------------------------------------
def test_a_cpu_goes_without_them_unless_told_otherwise(runs):
    logits, label = batch(6)
    logits.requires_grad_()
    for implementation in ('auto', 'torch'):
        BackCELoss(implementation=implementation)(logits, label).backward()
    assert runs == dict(forward=0, backward=0)


def test_what_they_cannot_is_refused_where_they_are_asked_for(monkeypatch):
    logits, label = batch(6)
    loss = BackCELoss(implementation='triton')
    with pytest.raises(FedSegError, match="implementation='triton' cannot be used: they are for scores of half or "
                                          'single precision, not torch.float64'):
        loss(logits.double(), label)
    with pytest.raises(FedSegError, match='they do not run on the device meta'):
        loss(logits.to('meta'), label.to('meta'))
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    back_ce_loss.reason_against_triton.cache_clear()
    with pytest.raises(FedSegError, match='Triton is not installed; leave it out'):
        loss(logits, label)
    back_ce_loss.reason_against_triton.cache_clear()
    with pytest.raises(FedSegError, match="must be 'auto', 'torch' or 'triton', but is 'cuda'"):
        BackCELoss(implementation='cuda')


class OnAGpu(torch.Tensor):
    """A tensor that says that it is on a GPU."""
    is_cuda = True


def test_a_gpu_goes_with_them_where_they_work(runs, kernels, monkeypatch):
    """With 'auto'; they are tried before, and where that fails torch's operations give the same loss."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    logits, label = batch(6)
    expected = BackCELoss(implementation='torch')(logits, label)
    said = []
    monkeypatch.setattr(back_ce_loss, 'print_log', lambda sentence, *args: said.append(sentence))
    monkeypatch.setattr(kernels, '_on', lambda logits: torch.cuda.device(-1))
    assert BackCELoss()(logits.as_subclass(OnAGpu), label).item() == pytest.approx(expected.item(), rel=1e-6)
    assert runs['forward'] >= 1 and not said
    # double precision is torch's, and no news
    BackCELoss()(logits.double().as_subclass(OnAGpu), label)
    assert not said

    class NoCompiler:
        def __getitem__(self, grid):
            raise RuntimeError('Failed to find C compiler')

    before = dict(runs)
    monkeypatch.setattr(kernels, '_forward', NoCompiler())
    monkeypatch.setattr(kernels, 'is_interpreted', lambda: True)
    back_ce_loss.reason_against_triton.cache_clear()
    back_ce_loss._say_once.cache_clear()
    for _ in range(2):
        assert torch.equal(BackCELoss()(logits.as_subclass(OnAGpu), label).as_subclass(torch.Tensor), expected)
    assert runs == before
    assert said == ['BackCE runs without its Triton kernels (RuntimeError: Failed to find C compiler): the same loss, '
                    'but slower.']
    back_ce_loss.reason_against_triton.cache_clear()


COMPILE = """
import fedseg_mm, torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from fedseg_mm.models.losses import back_ce_triton
assert not back_ce_triton.is_interpreted()
pointers = dict(labels='*u8', hidden='*u8', absent='*u8', loss='*fp32', log_total='*fp32', offset='*fp32',
                scale='*fp32')
for dtype, arch, load in (('fp32', 80, 'v4.b32'), ('bf16', 90, 'v4.b32'), ('fp16', 80, 'v4.b32')):
    for kernel in (back_ce_triton._forward, back_ce_triton._backward):
        for together in (True, False):
            # as Triton sees the arguments of 512 x 1024 pixels: a stride of 1 is known, and what 16 divides is marked
            known = dict(BLOCK=back_ce_triton.PIXELS if together else back_ce_triton.PIXELS_APART)
            known.update({name: 1 for name in kernel.arg_names if name.endswith(
                'pixel_stride' if together else 'class_stride')})
            marked = {'num_pixels', 'image_stride', 'gradient_image_stride', 'scores', 'gradient', *pointers} | (
                {'class_stride', 'gradient_class_stride'} if together else set())
            signature = {name: 'constexpr' if name in known else pointers.get(name, '*' + dtype if name in (
                'scores', 'gradient') else 'i32') for name in kernel.arg_names}
            compiled = triton.compile(
                ASTSource(kernel, signature, known, {(place,): [['tt.divisibility', 16]] for place, name in enumerate(
                    kernel.arg_names) if name in marked and name not in known}), target=GPUTarget('cuda', arch, 32))
            assert compiled.asm['cubin']
            print(dtype, kernel.fn.__name__, together, 'ld.global.v' in compiled.asm['ptx'], compiled.metadata.shared)
"""


@pytest.mark.slow
def test_they_compile_for_gpus_without_one(tmp_path):
    """For Ampere and Hopper; scores that are neighbours in memory are read several at a time."""
    environment = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', COMPILE], capture_output=True, text=True, cwd=ROOT,
                          env={**environment, 'TRITON_CACHE_DIR': str(tmp_path), 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 12
    assert all(line[-2] == 'True' for line in lines if line[2] == 'True'), lines
