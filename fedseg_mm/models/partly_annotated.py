"""Losses of MMSegmentation and others on images that are annotated in part: what they make of the other pixels."""
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from mmseg.models.decode_heads import STDCHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import BoundaryLoss, CrossEntropyLoss, DiceLoss, LovaszLoss, OhemCrossEntropy
from mmseg.models.losses.utils import weight_reduce_loss
from torch import Tensor, nn

from fedseg_mm.datasets.labels import VOID
from fedseg_mm.models.losses.back_ce_loss import BackCELoss


class HeadLoss(NamedTuple):
    """A loss of a head.

    Args:
        name (str): Its key in the config, without ``model.``.
        head (BaseDecodeHead): The head.
        loss (nn.Module): The loss.
    """
    name: str
    head: BaseDecodeHead
    loss: nn.Module


def head_losses(model: nn.Module) -> Iterator[HeadLoss]:
    """All losses of a segmentor's heads."""
    for name, head in model.named_modules():
        if isinstance(head, BaseDecodeHead):
            losses = getattr(head, 'loss_decode', None)
            if isinstance(losses, nn.ModuleList):
                yield from (HeadLoss(f'{name}.loss_decode.{place}', head, loss) for place, loss in enumerate(losses))
            elif isinstance(losses, nn.Module):
                yield HeadLoss(f'{name}.loss_decode', head, losses)


# --- while clients train ----------------------------------------------------
def leave_out_unannotated(model: nn.Module, unannotated: Callable[[], Tensor | None]) -> Callable[[], None]:
    """Have region losses see annotated pixels only, and those that fail without a pixel be 0 there.

    MMSegmentation's DiceLoss takes a pixel of label 255 for one of no class,
    and teaches that every class is absent there. An image without unannotated
    pixels goes through the loss as it is.

    Args:
        model (nn.Module): An MMSegmentation segmentor.
        unannotated (Callable): Gives the unannotated pixels of the current
            batch, bool (N, H, W), or None.

    Returns:
        Callable: Undoes this.
    """
    changed = [loss for _, head, loss in head_losses(model) if not isinstance(head, STDCHead) and _needs_care(loss)]
    for loss in changed:
        loss.forward = _careful(loss, loss.forward, unannotated)

    def undo() -> None:
        for loss in changed:
            loss.__dict__.pop('forward', None)

    return undo


def _needs_care(loss: nn.Module) -> bool:
    return isinstance(loss, (DiceLoss, LovaszLoss, OhemCrossEntropy)) or (
        isinstance(loss, CrossEntropyLoss) and loss.use_sigmoid)


def _careful(loss: nn.Module, forward: Callable, unannotated: Callable[[], Tensor | None]) -> Callable:
    def careful_forward(score: Tensor, label: Tensor, *args, **kwargs):
        hidden = unannotated()
        if hidden is None or hidden.shape != label.shape:  # labels of edges or points
            return forward(score, label, *args, **kwargs)
        if isinstance(loss, DiceLoss):
            if not args and kwargs.get('weight') is None and hidden.any():
                return _dice_of_annotated(loss, forward, score, label, hidden, **kwargs)
            return forward(score, label, *args, **kwargs)
        least = 2 if isinstance(loss, LovaszLoss) else 1  # which fails on a single pixel too
        pixels = (label != VOID).flatten(1).sum(1)
        if isinstance(loss, LovaszLoss) and loss.per_image and (pixels < least).any():
            score, label = score[pixels >= least], label[pixels >= least]
        if not len(label) or pixels.sum() < least:
            return score.sum() * 0
        return forward(score, label, *args, **kwargs)

    return careful_forward


def _dice_of_annotated(loss: DiceLoss, forward: Callable, score: Tensor, label: Tensor, hidden: Tensor, weight=None,
                       avg_factor=None, reduction_override: str | None = None, **kwargs) -> Tensor:
    """Dice, which is a mean over images, with each image as a row of its pixels that are not hidden."""
    parts = []
    for one, own, shown in zip(score, label, ~hidden):
        row = forward(one[:, shown][None, :, None], own[shown][None, None], reduction_override='none', **kwargs) \
            if shown.any() else one.sum()[None] * 0
        parts.append(row)
    return weight_reduce_loss(torch.cat(parts), None, reduction_override or loss.reduction, avg_factor)


# --- before training --------------------------------------------------------
class Trial(NamedTuple):
    """What came of trying a loss on a small map.

    Args:
        error (str, optional): How it fails with every pixel annotated.
        error_with_void (str, optional): How it fails with void among them.
        learns_void (bool): Whether it has a gradient at void pixels.
    """
    error: str | None
    error_with_void: str | None
    learns_void: bool


def try_loss(head: BaseDecodeHead, loss: nn.Module) -> Trial:
    """Try a loss as its head will call it, on random scores, and look at its gradient at void pixels."""
    stock = type(head).loss_by_feat is BaseDecodeHead.loss_by_feat
    weight = head.conv_seg.weight if isinstance(getattr(head, 'conv_seg', None), nn.Module) else torch.empty(0)
    generator = torch.Generator().manual_seed(0)
    channels = head.out_channels
    scores = torch.randn(2, channels, 8, 8, generator=generator).to(weight.device)
    labels = torch.randint(max(channels, 2), (2, 8, 8), generator=generator).to(weight.device)
    partly = labels.clone()
    partly[:, :4] = VOID
    errors: list[str | None] = []
    gradient = None
    for label in (labels, partly):
        score = scores.clone().requires_grad_()
        try:
            with torch.random.fork_rng(devices=[]):
                value = loss(score, label, weight=None, ignore_index=VOID) if stock else loss(score, label)
                gradient, = torch.autograd.grad(value.sum(), score, allow_unused=True)
            errors.append(None)
        except Exception as error:  # a loss may fail in any way, which is what is asked here
            errors.append(f'{type(error).__name__}: {" ".join(str(error).split())[:200]}')
    learns = errors[1] is None and gradient is not None and bool((gradient[:, :, :4] != 0).any())
    return Trial(errors[0], errors[1], learns)


def check_losses(model: nn.Module, hides: bool, has_void: bool) -> tuple[list[str], list[str]]:
    """What is wrong with a model's losses, and what to warn of, a sentence each.

    Args:
        model (nn.Module): An MMSegmentation segmentor.
        hides (bool): Whether some client annotates a part of its pixels only.
        has_void (bool): Whether labels have void pixels.
    """
    faults, warnings = [], []
    for name, head, loss in head_losses(model):
        if isinstance(loss, BackCELoss):
            continue
        key, kind = f'model.{name}', type(loss).__name__
        if isinstance(head, STDCHead) or isinstance(loss, BoundaryLoss):
            if hides:
                warnings.append(f'{key}: {kind} learns that there are no edges in unannotated areas, because nobody '
                                'knows the edges there: its head suffers where clients annotate few classes.')
            continue
        trial = try_loss(head, loss)
        if trial.error is not None:
            if type(head).loss_by_feat is BaseDecodeHead.loss_by_feat:
                faults.append(f'{key}: {kind} fails on scores and labels of {head.num_classes} classes '
                              f'({trial.error}): use another loss')
        elif trial.error_with_void is not None:
            if hides or has_void:
                faults.append(f'{key}: {kind} fails where pixels are void or unannotated ({trial.error_with_void}): '
                              'use another loss, or remove its class_weight')
        elif trial.learns_void and hides and not isinstance(loss, DiceLoss):
            warnings.append(f'{key}: {kind} also learns from pixels that a client does not annotate, as if their class '
                            'were known: use a loss that ignores label 255, such as TverskyLoss or LovaszLoss.')
    return faults, warnings
