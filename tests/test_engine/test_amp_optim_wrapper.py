"""Resizes under mixed precision are done in float32, and keep their gradients."""
import pytest
import torch
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch.nn import functional as F

from fedseg_mm.engine.amp_optim_wrapper import Float32Resizes


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('call', [
    lambda z: F.interpolate(z, size=(16, 16), mode='bilinear'), lambda z: F.interpolate(z, None, 8, 'bilinear', False),
    lambda z: F.interpolate(input=z, scale_factor=4, mode='bicubic')])
def test_half_precision_is_resized_in_float32(call, dtype):
    scores = torch.randn(1, 3, 2, 2).to(dtype).requires_grad_()
    with Float32Resizes():
        resized = call(scores)
    assert resized.dtype == torch.float32
    assert torch.equal(resized, call(scores.detach().float()))
    resized.sum().backward()
    assert scores.grad.dtype == dtype


def test_what_sums_nothing_stays():
    with Float32Resizes():
        assert F.interpolate(torch.ones(1, 1, 2, 2, dtype=torch.bfloat16), scale_factor=2).dtype == torch.bfloat16
        assert F.interpolate(torch.ones(1, 1, 2, 2).double(), scale_factor=2, mode='bilinear').dtype == torch.float64
        assert (torch.ones(2, dtype=torch.bfloat16) + 1).dtype == torch.bfloat16


def test_the_wrapper_resizes_so_within_its_context_alone(monkeypatch):
    """It is MMEngine's, which is for GPUs: what asks for one is told that there is one."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    model = torch.nn.Linear(2, 2)
    wrapper = OPTIM_WRAPPERS.build(dict(type='Float32ResizeAmpOptimWrapper', dtype='bfloat16', loss_scale=dict(
        enabled=False), optimizer=torch.optim.SGD(model.parameters(), 0.1)))
    small = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)
    with wrapper.optim_context(model):
        assert F.interpolate(small, scale_factor=2, mode='bilinear').dtype == torch.float32
    assert F.interpolate(small, scale_factor=2, mode='bilinear').dtype == torch.bfloat16
