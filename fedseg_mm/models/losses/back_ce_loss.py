"""BackCE: cross-entropy that knows that unannotated pixels are some other class."""
import functools
import importlib.util
import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn as nn
from mmengine.logging import print_log
from mmseg.models.losses.utils import get_class_weight
from mmseg.registry import MODELS
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedseg_mm.datasets.labels import UNANNOTATED
from fedseg_mm.errors import FedSegError
from fedseg_mm.validation import check_number

#: Scores that are worked on at a time, which bounds the temporary memory: a CPU's caches want few, a GPU few launches.
BLOCK = dict(cpu=2**21, cuda=2**25)
#: What works on the scores: torch's operations, one Triton kernel per pass, or that on a GPU where it works.
IMPLEMENTATIONS = ('auto', 'torch', 'triton')


class _LogRatio(torch.autograd.Function):
    """log(sum of all exp(z)) - log(exp(z_y), or the sum of the absent classes' where a pixel is hidden).

    The forward pass keeps a few numbers per pixel and no map of scores; the
    backward pass writes the gradient, which is, with p the probabilities and
    q those among the absent classes, p - [c = y] for a shown pixel, and for
    a hidden one p for annotated and -q P_annotated for absent classes. Both
    are differences that were taken in log space: no pixel is too hard.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, label: Tensor, hidden: Tensor, absent: Tensor) -> Tensor:
        """Logits (N, C, H, W), valid labels (N, H, W), hidden pixels (N, H, W), absent classes (N, C, 1, 1)."""
        dtype = torch.promote_types(logits.dtype, torch.float32)
        is_absent = absent.to(dtype)
        only_absent = torch.zeros_like(is_absent).masked_fill_(~absent, -torch.inf)
        log_total = logits.new_empty(label.shape, dtype=dtype)
        log_absent, loss = torch.empty_like(log_total), torch.empty_like(log_total)
        for block in _blocks(logits):
            z = logits[block]
            part = z + only_absent[block]
            top, top_absent = z.amax(1, keepdim=True).to(dtype), part.amax(1, keepdim=True)
            top_absent = torch.where(top_absent.isneginf(), top, top_absent)  # no class is absent
            # annotated and absent classes are each scaled by their own greatest score: neither sum underflows
            _choose(absent[block], top, top_absent, part)
            torch.sub(z, part, out=part).exp_()
            whole = part.sum(1)
            among = part.mul_(is_absent[block]).sum(1)
            top, top_absent = top[:, 0], top_absent[:, 0]
            log_total[block] = torch.addcmul(whole - among, among, (top_absent - top).exp_()).log_().add_(top)
            log_absent[block] = among.log_().add_(top_absent)
            shown = z.gather(1, label[block].unsqueeze(1)).squeeze(1)
            loss[block] = log_total[block] - torch.where(hidden[block], log_absent[block], shown)
        ctx.save_for_backward(logits, label.to(torch.uint8), hidden, absent, log_total, log_absent)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        logits, label, hidden, absent, log_total, log_absent = ctx.saved_tensors
        is_absent = absent.to(log_total.dtype)
        gradient = torch.empty_like(logits)
        for block in _blocks(logits):
            z = logits[block]
            total, hides, scale = (kept[block].unsqueeze(1) for kept in (log_total, hidden, grad_output))
            among = torch.where(hides, log_absent[block].unsqueeze(1), total)
            # in the gradient itself, unless its precision is too low to subtract in
            part = gradient[block] if gradient.dtype == total.dtype else torch.empty_like(
                z, dtype=total.dtype)
            _choose(absent[block], total, among, part)
            torch.sub(z, part, out=part).exp_()
            # -P_annotated = P_absent - 1, less the factor of the other classes
            further = torch.where(hides, scale * ((among - total).expm1_() - 1), 0)
            part.mul_(torch.addcmul(scale, is_absent[block], further, out=torch.empty_like(part)))
            part.scatter_add_(1, label[block].unsqueeze(1).long(), torch.where(hides, 0, -scale))
            if gradient.dtype != part.dtype:
                gradient[block] = part
        return gradient, None, None, None


def _choose(absent: Tensor, start: Tensor, end: Tensor, out: Tensor) -> None:
    """Write ``end`` for absent classes and ``start`` for the others.

    As ``start + (end - start)``, whose rounding the published results have,
    unless scores are so far apart that it would be more than rounding.
    """
    change = end - start
    moved = start + change
    near = (moved - end).abs() < 1  # not where the difference has no number either
    if out.device.type == 'cpu' and near.all():  # faster; on a GPU it would be waited for
        torch.addcmul(start, absent.to(out.dtype), change, out=out)
    else:
        torch.where(absent, torch.where(near, moved, end), start, out=out)


def _blocks(logits: Tensor) -> list[slice]:
    """Images that are worked on together."""
    size = BLOCK.get(logits.device.type, BLOCK['cuda'])
    images = max(1, size // max(1, logits[:1].numel()))
    return [slice(first, first + images) for first in range(0, len(logits), images)]


def back_ce(logits: Tensor, label: Tensor, annotated: Tensor | None = None, unannotated: Tensor | None = None,
            ignore_index: int = 255, implementation: str = 'auto') -> tuple[Tensor, Tensor]:
    r"""BackCE of every pixel (FedSeg, Miao et al., CVPR 2023, :math:`L_{backce}`).

    .. math::
        L_j = \begin{cases}
            \log\sum_k e^{z_k} - \log e^{z_y} & \text{annotated pixel} \\
            \log\sum_k e^{z_k} - \log\sum_{k \notin C_i} e^{z_k} & \text{unannotated pixel}
        \end{cases}

    Computed in log space and at least in float32: the probability of the
    absent classes underflows in low precision. Where all classes are
    annotated, unannotated pixels do not count. Beside its arguments it holds
    the gradient, a few numbers per pixel, and what a few images take.

    Args:
        logits (Tensor): Scores z of shape (N, C, H, W).
        label (Tensor): Labels of shape (N, H, W); 254, and every class that
            is not annotated, is an unannotated pixel.
        annotated (Tensor, optional): Which classes are annotated
            (:math:`C_i`), bool (C,), or (N, C) where images differ. Defaults
            to None: all are.
        unannotated (Tensor, optional): Further unannotated pixels, whatever
            their label, bool (N, H, W).
        ignore_index (int): Label that does not count. Defaults to 255.
        implementation (str): As in :class:`BackCELoss`. Defaults to 'auto'.

    Returns:
        tuple[Tensor, Tensor]: The loss (N, H, W), 0 where a pixel does not
        count, and which pixels count, bool (N, H, W).
    """
    pixels = _Pixels.of(logits, label, annotated, unannotated, ignore_index)
    return _back_ce(logits, pixels, implementation), pixels.counted


class _Pixels(NamedTuple):
    """What every pixel is to its client.

    Args:
        shown (Tensor): Its class, or 0 where it has none, (N, H, W).
        hidden (Tensor): Whether it is unannotated, bool (N, H, W).
        counted (Tensor): Whether it counts, bool (N, H, W).
        annotated (Tensor): Which classes are annotated, bool (N, C).
    """
    shown: Tensor
    hidden: Tensor
    counted: Tensor
    annotated: Tensor

    @classmethod
    def of(cls, logits: Tensor, label: Tensor, annotated: Tensor | None, unannotated: Tensor | None,
           ignore_index: int) -> '_Pixels':
        """See :func:`back_ce` for the arguments."""
        if annotated is None:
            annotated = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        annotated = annotated.expand(logits.shape[:2])
        void = label == ignore_index
        hidden = label == UNANNOTATED
        if unannotated is not None:
            void = void & ~unannotated
            hidden = hidden | unannotated
        shown = label.masked_fill(hidden | void, 0)
        hidden = hidden | (~annotated.gather(1, shown.flatten(1)).view_as(shown) & ~void)
        counted = ~(void | (hidden & annotated.all(1)[:, None, None]))
        return cls(shown, hidden & counted, counted, annotated)

    def group_sizes(self, each_image: bool) -> Tensor:
        """How many pixels are in each pixel's group, (N, H, W), at least 1.

        A class's shown pixels are a group, all hidden pixels are another,
        in the batch or in each image.
        """
        num_classes = self.annotated.shape[1]
        groups = self.shown.long().masked_fill(self.hidden, num_classes).masked_fill(~self.counted, num_classes + 1)
        groups = groups.flatten(1) if each_image else groups.flatten()[None]
        # integers are added exactly and in any order, also by a GPU's threads
        sizes = groups.new_zeros(len(groups), num_classes + 2).scatter_add_(1, groups, torch.ones_like(groups))
        return sizes.gather(1, groups).view_as(self.shown)


@functools.cache
def reason_against_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why scores cannot go through the Triton kernels; None if they can.

    The kernels are tried: Triton may lack a compiler, or the GPU be too old
    for it, which shows in no other way.
    """
    if importlib.util.find_spec('triton') is None:
        return 'Triton is not installed'
    from fedseg_mm.models.losses import back_ce_triton
    if dtype not in back_ce_triton.DTYPES:
        return f'they are for scores of half or single precision, not {dtype}'
    if device.type != ('cpu' if back_ce_triton.is_interpreted() else 'cuda'):
        return f'they do not run on the device {device}'
    try:
        with torch.enable_grad():
            logits = torch.zeros(1, 2, 1, 1, dtype=dtype, device=device, requires_grad=True)
            label, hidden = (torch.zeros(1, 1, 1, dtype=kind, device=device) for kind in (torch.uint8, torch.bool))
            absent = torch.zeros(1, 2, 1, 1, dtype=torch.bool, device=device)
            torch.autograd.grad(back_ce_triton.FusedLogRatio.apply(logits, label, hidden, absent).sum(), logits)
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return None


def _uses_triton(logits: Tensor, implementation: str) -> bool:
    """Whether the Triton kernels can be used on these scores.

    Raises:
        FedSegError: They are asked for, and cannot.
    """
    if implementation == 'torch' or (implementation == 'auto' and not (
            logits.is_cuda and torch.cuda.is_available() and logits.dtype != torch.float64)):
        return False
    reason = reason_against_triton(logits.device, logits.dtype)
    if reason is not None and implementation == 'triton':
        raise FedSegError(f"BackCELoss.implementation='triton' cannot be used: {reason}; leave it out")
    if reason is not None:
        _say_once(f'BackCE runs without its Triton kernels ({reason}): the same loss, but slower.')
    return reason is None


@functools.cache
def _say_once(sentence: str) -> None:
    print_log(sentence, 'current', logging.WARNING)


def _back_ce(logits: Tensor, pixels: _Pixels, implementation: str) -> Tensor:
    ratio: type[torch.autograd.Function] = _LogRatio
    if _uses_triton(logits, implementation):
        from fedseg_mm.models.losses.back_ce_triton import FusedLogRatio
        ratio = FusedLogRatio
    loss = ratio.apply(logits, pixels.shown, pixels.hidden, ~pixels.annotated[..., None, None])
    return loss.masked_fill(~pixels.counted, 0)


@MODELS.register_module()
class BackCELoss(nn.Module):
    """BackCE, for heads that predict a map: ``loss_decode=dict(type='BackCELoss')``.

    See :func:`back_ce` for the equation. The mean is taken over the pixels
    that are not void. While a federated client trains, the local trainer
    names its classes (:meth:`set_annotated_classes`) and its unannotated
    pixels (:meth:`set_unannotated`); used elsewhere, a label of 254 is an
    unannotated pixel, and all classes are annotated until told otherwise.

    Args:
        loss_weight (float): Factor of this loss. Defaults to 1.0.
        class_weight (list[float] or str, optional): Factor of each class, or
            a file with it; an unannotated pixel has the mean factor of the
            classes that it may be. Defaults to None.
        void_as_background (bool): Count void and padding as unannotated, as
            the authors' code did. Defaults to False.
        balance_power (float): How much groups of pixels count, from 0 to 1.
            In the plain mean, a client of poles has a hundredth of its
            pixels to learn from. Groups are the pixels of each annotated
            class and all unannotated ones; with power :math:`\\gamma`, the
            loss is the mean of the groups' means, weighted by their shares of
            the pixels to the power :math:`\\gamma`,

            .. math::
                L = \frac{\\sum_g s_g^\\gamma\\, \bar L_g}{\\sum_g s_g^\\gamma},
                \\qquad s_g = \frac{|P_g|}{|P|},
                \\qquad \bar L_g = \frac{1}{|P_g|} \\sum_{j \\in P_g} L_j

            so that 1 is the plain mean of the paper, 0 counts all groups
            alike, and 0.5 weights classes by the root of their inverse
            frequency. Not in the paper. Defaults to 1.
        balance_over (str): Whether groups are those of the 'batch' or of each
            'image'. Defaults to 'batch'.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_name (str): Name in the log; with the prefix 'loss_' it is part
            of the backward graph. Defaults to 'loss_back_ce'.
        implementation (str): What works on the scores: 'torch', its own
            operations; 'triton', one kernel per pass, in float32 for scores
            of half or single precision; or 'auto', the kernels on a GPU where
            they work. Defaults to 'auto'.

    Raises:
        FedSegError: An argument is not as described.
    """

    def __init__(self, loss_weight: float = 1.0, class_weight: Sequence[float] | str | None = None,
                 void_as_background: bool = False, balance_power: float = 1.0, balance_over: str = 'batch',
                 reduction: str = 'mean', loss_name: str = 'loss_back_ce', implementation: str = 'auto') -> None:
        super().__init__()
        check_number('BackCELoss.balance_power', balance_power, least=0, most=1)
        if balance_over not in ('batch', 'image'):
            raise FedSegError(f"BackCELoss.balance_over must be 'batch' or 'image', but is {balance_over!r}")
        if reduction not in ('none', 'mean', 'sum'):
            raise FedSegError(f"BackCELoss.reduction must be 'none', 'mean' or 'sum', but is {reduction!r}")
        if implementation not in IMPLEMENTATIONS:
            raise FedSegError("BackCELoss.implementation must be 'auto', 'torch' or 'triton', but is "
                              f'{implementation!r}')
        self.loss_weight = loss_weight
        self.class_weight = get_class_weight(class_weight)
        self.void_as_background = void_as_background
        self.balance_power = balance_power
        self.balance_over = balance_over
        self.reduction = reduction
        self.implementation = implementation
        self._loss_name = loss_name
        self._classes: tuple[tuple[int, ...] | None, ...] = (None, )
        self._annotated: Tensor | None = None
        self._weights: Tensor | None = None
        self._unannotated: Tensor | None = None

    @property
    def loss_name(self) -> str:
        return self._loss_name

    def set_annotated_classes(self, *classes: Sequence[int] | None) -> None:
        """Name the classes :math:`C_i` that the labels to come annotate.

        Args:
            classes (Sequence[int], optional): One set for all images, or one
                for each image of the next batch. None for all classes.
        """
        sets = tuple(None if one is None else tuple(sorted({int(c) for c in one})) for one in classes)
        if sets != self._classes:
            self._classes = sets
            self._annotated = None

    def set_unannotated(self, mask: Tensor | None) -> None:
        """Name the unannotated pixels of the next batch, bool (N, H, W); None for those labelled 254."""
        self._unannotated = mask

    def forward(self, cls_score: Tensor, label: Tensor, weight: Tensor | None = None,
                avg_factor: float | None = None, reduction_override: str | None = None,
                ignore_index: int = 255, **kwargs) -> Tensor:
        """Forward function.

        Args:
            cls_score (Tensor): Logits of shape (N, C, H, W).
            label (Tensor): Labels of shape (N, H, W).
            weight (Tensor, optional): Factor of each pixel, (N, H, W). Pixels
                named by :meth:`set_unannotated` have the factor 1: who made
                the weights, such as OHEM, saw them as void.
            avg_factor (float, optional): Divisor of the mean, instead of the
                number (or total class weight) of the pixels that count.
            reduction_override (str, optional): Instead of ``reduction``.
            ignore_index (int): Label of void. Defaults to 255.

        Returns:
            Tensor: The loss, a scalar unless the reduction is 'none'.

        Raises:
            ValueError: A named class is not one of the C classes, or the mask
                of unannotated pixels does not fit the labels.
        """
        reduction = reduction_override or self.reduction
        annotated = self._annotated_mask(cls_score)
        unannotated = self._unannotated
        if unannotated is not None and unannotated.shape != label.shape:
            raise ValueError(f'the unannotated pixels have shape {tuple(unannotated.shape)}, but the labels '
                             f'{tuple(label.shape)}')
        if self.void_as_background:
            void = label == ignore_index
            unannotated = void if unannotated is None else unannotated | void
        pixels = _Pixels.of(cls_score, label, annotated, unannotated, ignore_index)
        loss = _back_ce(cls_score, pixels, self.implementation)

        factors = pixels.counted.to(loss.dtype)
        if self.class_weight is not None:
            factors = factors * self._pixel_factors(loss, cls_score.shape[1], label, annotated, unannotated)
        if self.balance_power != 1:
            factors = self._balanced(factors, pixels)
        if self.class_weight is not None or self.balance_power != 1:
            loss = loss * factors
        if weight is not None:
            weight = weight.to(loss.dtype)
            if self._unannotated is not None:  # a sampler saw void there and chose none of them
                weight = weight.masked_fill(self._unannotated, 1)
            loss = loss * weight
        if reduction == 'none':
            return self.loss_weight * loss
        if reduction == 'sum':
            return self.loss_weight * loss.sum()
        if avg_factor is None:
            # above zero, so that a batch without a pixel that counts gives a differentiable zero
            return self.loss_weight * loss.sum() / factors.sum().clamp(min=torch.finfo(factors.dtype).tiny)
        return self.loss_weight * loss.sum() / avg_factor

    def _balanced(self, factors: Tensor, pixels: _Pixels) -> Tensor:
        """The pixels' factors times the size of their group to the power - 1, their sum being as before."""
        sizes = pixels.group_sizes(self.balance_over == 'image').to(factors.dtype)
        balanced = factors * sizes.pow(self.balance_power - 1)
        return balanced * (factors.sum() / balanced.sum().clamp(min=torch.finfo(factors.dtype).tiny))

    def _annotated_mask(self, logits: Tensor) -> Tensor | None:
        """Which classes are annotated, bool (1, C) or (N, C) on the logits' device; None for all."""
        num_classes = logits.shape[1]
        if all(classes is None or len(classes) == num_classes for classes in self._classes):
            return None
        if len(self._classes) not in (1, len(logits)):
            raise ValueError(f'annotated classes are named for {len(self._classes)} images, but there are '
                             f'{len(logits)}')
        if self._annotated is None or self._annotated.device != logits.device:
            mask = torch.zeros(len(self._classes), num_classes, dtype=torch.bool)
            for row, classes in zip(mask, self._classes):
                if classes is None:
                    classes = tuple(range(num_classes))
                if not all(0 <= c < num_classes for c in classes):
                    raise ValueError(f'the annotated classes {classes} are not all among the {num_classes} classes')
                row[list(classes)] = True
            self._annotated = mask.to(logits.device, non_blocking=True)
        return self._annotated

    def _pixel_factors(self, loss: Tensor, num_classes: int, label: Tensor, annotated: Tensor | None,
                       unannotated: Tensor | None) -> Tensor:
        """Each pixel's class weight, (N, H, W)."""
        if len(self.class_weight) != num_classes:
            raise ValueError(f'class_weight has {len(self.class_weight)} entries, but there are {num_classes} classes')
        by_label = loss.new_zeros(len(label), 256)  # for each image
        if self._weights is None or self._weights.device != loss.device:
            self._weights = torch.tensor(self.class_weight, dtype=loss.dtype).to(loss.device, non_blocking=True)
        by_label[:, :num_classes] = self._weights
        if annotated is not None:
            absent = ~annotated.expand(len(label), num_classes)
            mean_absent = (by_label[:, :num_classes] * absent).sum(1) / absent.sum(1).clamp(min=1)
            by_label[:, :num_classes] = torch.where(absent, mean_absent[:, None], by_label[:, :num_classes])
            by_label[:, UNANNOTATED] = mean_absent
        if unannotated is not None:
            label = label.masked_fill(unannotated, UNANNOTATED)
        return by_label.gather(1, label.flatten(1)).view_as(loss)
