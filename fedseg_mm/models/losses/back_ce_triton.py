"""BackCE's passes over the scores as Triton kernels: each reads them once, and the backward pass writes once.

Importing this module needs Triton, which is part of torch's builds for CUDA. With ``TRITON_INTERPRET=1`` in the
environment before the import, the kernels run on a CPU, slowly.
"""
import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Types of scores that the kernels take; they compute in float32.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: Pixels of one program: neighbours in memory, or a class apart (channels_last), whose lines are to stay in the cache.
PIXELS, PIXELS_APART = 512, 128
#: Below every score: what has no class yet.
LOWEST: tl.constexpr = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def _forward(scores, labels, hidden, absent, loss, log_total, offset, num_classes, num_pixels, image_stride,
             class_stride, pixel_stride, BLOCK: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < num_pixels
    place = image * num_pixels + pixel
    label = tl.load(labels + place, inside, other=0).to(tl.int32)
    row = scores + image * image_stride + pixel * pixel_stride
    # greatest score so far and sum of exp(score - greatest), of annotated and of absent classes: neither underflows
    top = tl.full((BLOCK, ), LOWEST, tl.float32)
    top_absent = tl.full((BLOCK, ), LOWEST, tl.float32)
    total = tl.full((BLOCK, ), 0.0, tl.float32)
    among = tl.full((BLOCK, ), 0.0, tl.float32)
    shown = tl.full((BLOCK, ), 0.0, tl.float32)
    for cls in range(num_classes):
        z = tl.load(row + cls * class_stride, inside, other=0).to(tl.float32)
        shown = tl.where(label == cls, z, shown)
        if tl.load(absent + image * num_classes + cls) != 0:
            ratio = tl.exp(-tl.abs(z - top_absent))
            among = tl.where(z > top_absent, among * ratio + 1, among + ratio)
            top_absent = tl.where(z > top_absent, z, top_absent)
        else:
            ratio = tl.exp(-tl.abs(z - top))
            total = tl.where(z > top, total * ratio + 1, total + ratio)
            top = tl.where(z > top, z, top)
    greatest = tl.where(top_absent > top, top_absent, top)
    total = total * tl.exp(top - greatest)  # of the annotated classes; in terms of the greatest of all
    whole = tl.log(total + among * tl.exp(top_absent - greatest))
    hides = tl.load(hidden + place, inside, other=0) != 0
    log_absent = tl.log(among) + top_absent
    whole_sum = whole + greatest
    tl.store(loss + place, whole_sum - tl.where(hides, log_absent, shown), inside)
    tl.store(log_total + place, whole_sum, inside)
    # of a hidden pixel: log(P_annotated q_k) = z_k - offset, with q the probabilities among the absent classes
    tl.store(offset + place, log_absent - (tl.log(total) - whole), inside)


@triton.jit
def _backward(scores, labels, hidden, absent, log_total, offset, scale, gradient, num_classes, num_pixels,
              image_stride, class_stride, pixel_stride, gradient_image_stride, gradient_class_stride,
              gradient_pixel_stride, BLOCK: tl.constexpr):
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < num_pixels
    place = image * num_pixels + pixel
    label = tl.load(labels + place, inside, other=0).to(tl.int32)
    hides = tl.load(hidden + place, inside, other=0) != 0
    total = tl.load(log_total + place, inside, other=0)
    behind = tl.load(offset + place, inside, other=0)
    factor = tl.load(scale + place, inside, other=0)
    label = tl.where(hides, -1, label)
    row = scores + image * image_stride + pixel * pixel_stride
    target = gradient + image * gradient_image_stride + pixel * gradient_pixel_stride
    for cls in range(num_classes):
        z = tl.load(row + cls * class_stride, inside, other=0).to(tl.float32)
        among_absent = hides & (tl.load(absent + image * num_classes + cls) != 0)
        part = tl.exp(z - tl.where(among_absent, behind, total))
        part = tl.where(among_absent, -part, part) - tl.where(label == cls, 1.0, 0.0)
        tl.store(target + cls * gradient_class_stride, (factor * part).to(gradient.dtype.element_ty), inside)


def is_interpreted() -> bool:
    """Whether the kernels run on a CPU."""
    return not isinstance(_forward, triton.runtime.JITFunction)


class FusedLogRatio(torch.autograd.Function):
    """log(sum of all exp(z)) - log(exp(z_y), or the sum of the absent classes' where a pixel is hidden).

    As ``_LogRatio`` of :mod:`back_ce_loss`, in which the equations are.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, label: Tensor, hidden: Tensor, absent: Tensor) -> Tensor:
        """Logits (N, C, H, W), valid labels (N, H, W), hidden pixels (N, H, W), absent classes (N, C, 1, 1)."""
        if logits.stride(2) != logits.shape[3] * logits.stride(3):  # rows with gaps between them
            logits = logits.contiguous()
        label, hidden, absent = (one.to(torch.uint8).contiguous() for one in (label, hidden, absent))
        loss = logits.new_empty(label.shape, dtype=torch.float32)
        log_total, offset = torch.empty_like(loss), torch.empty_like(loss)
        grid, block = _programs(logits)
        with _on(logits):
            _forward[grid](logits, label, hidden, absent, loss, log_total, offset, *_sizes(logits), *_strides(logits),
                           BLOCK=block)
        ctx.save_for_backward(logits, label, hidden, absent, log_total, offset)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        logits, label, hidden, absent, log_total, offset = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        grid, block = _programs(logits)
        with _on(logits):
            _backward[grid](logits, label, hidden, absent, log_total, offset, grad_output.contiguous(), gradient,
                            *_sizes(logits), *_strides(logits), *_strides(gradient), BLOCK=block)
        return gradient, None, None, None


def _on(logits: Tensor) -> torch.cuda.device:
    """Kernels go to the current device, which need not be that of the scores."""
    return torch.cuda.device(logits.device.index if logits.is_cuda else -1)


def _programs(logits: Tensor) -> tuple[tuple[int, int], int]:
    """The grid and the pixels of each program."""
    block = PIXELS if logits.stride(3) == 1 else PIXELS_APART
    return (-(-logits[0, 0].numel() // block), len(logits)), block


def _sizes(logits: Tensor) -> tuple[int, int]:
    return logits.shape[1], logits[0, 0].numel()


def _strides(logits: Tensor) -> tuple[int, int, int]:
    """From image to image, class to class and pixel to pixel."""
    return logits.stride(0), logits.stride(1), logits.stride(3)
