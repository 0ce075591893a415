"""The heads' pixel accuracy, for which a GPU need not wait."""
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses.accuracy import accuracy as mmseg_accuracy
from torch import Tensor, nn


def accuracy(pred: Tensor, target: Tensor, topk: int | tuple[int, ...] = 1, thresh: float | None = None,
             ignore_index: int | None = None) -> Tensor | list[Tensor]:
    """MMSegmentation's accuracy, by a maximum and sums of masks.

    Its own sorts the scores of every pixel, and picks the pixels that count,
    so that the host waits for their number twice per head. What no head asks
    for (several best classes, a threshold) is still left to it.

    Args:
        pred (Tensor): Scores of shape (N, C, ...).
        target (Tensor): Labels of shape (N, ...).
        topk (int): 1. Defaults to 1.
        thresh (float, optional): None. Defaults to None.
        ignore_index (int, optional): Label that does not count. Defaults to
            None.

    Returns:
        Tensor: Percentage, of shape (1, ).
    """
    if topk != 1 or thresh is not None or not len(pred):
        return mmseg_accuracy(pred, target, topk, thresh, ignore_index)
    correct = pred.max(1).indices == target  # on a CPU, argmax takes five times as long
    counted = torch.ones_like(correct) if ignore_index is None else target != ignore_index
    eps = torch.finfo(torch.float32).eps
    # in the precision that MMSegmentation computes each step in
    share = (100.0 / (counted.sum().double() + eps)).float()
    return ((correct & counted).sum(dtype=torch.int64).float() + eps).mul(share)[None]


@contextmanager
def accuracy_without_waiting(model: nn.Module) -> Iterator[None]:
    """Have the heads of a model use :func:`accuracy` while this is entered.

    They look it up in the module that they are defined in, where it is put
    for so long.
    """
    names = {kind.__module__ for head in model.modules() if isinstance(head, BaseDecodeHead)
             for kind in type(head).__mro__}
    changed = [sys.modules[name] for name in names if getattr(sys.modules[name], 'accuracy', None) is mmseg_accuracy]
    for module in changed:
        module.accuracy = accuracy  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in changed:
            module.accuracy = mmseg_accuracy  # type: ignore[attr-defined]
