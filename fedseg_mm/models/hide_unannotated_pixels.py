"""Only BackCE is told which pixels are unannotated; all else sees void."""
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedseg_mm.datasets.labels import UNANNOTATED, VOID
from fedseg_mm.models.losses.back_ce_loss import BackCELoss
from fedseg_mm.models.partly_annotated import leave_out_unannotated


class Hiding:
    """Pixels that are hidden from a segmentor's heads until :meth:`remove`."""

    def __init__(self) -> None:
        #: Those of the current batch, bool (N, H, W).
        self.unannotated: Tensor | None = None
        self.undo: list[Callable[[], None]] = []

    def remove(self) -> None:
        """Undo it all."""
        for undo in self.undo:
            undo()
        self.unannotated = None


def hide_unannotated_pixels(model: nn.Module, untraced: Callable = lambda function: function) -> Hiding:
    """Have a segmentor turn label 254 into 255 before its heads see it.

    Other losses, OHEM samplers and the accuracy would take 254 for a class or
    fail on it. The model's BackCE losses are given the pixels as a mask, and
    told which classes each image's client annotates; region losses do not see
    the pixels (:func:`leave_out_unannotated`).

    Args:
        model (nn.Module): An MMSegmentation segmentor.
        untraced (Callable): Keeps a function out of compiled graphs. Defaults
            to leaving it as it is.

    Returns:
        Hiding: Its ``remove()`` undoes this.
    """
    losses = [module for module in model.modules() if isinstance(module, BackCELoss)]
    hiding = Hiding()

    def hide(module, args, kwargs):
        mode = kwargs.get('mode', args[2] if len(args) > 2 else 'tensor')
        samples = kwargs.get('data_samples', args[1] if len(args) > 1 else None)
        if mode != 'loss' or not samples:
            return
        labels = torch.cat([sample.gt_sem_seg.data for sample in samples])
        hiding.unannotated = unannotated = labels == UNANNOTATED
        for sample, mask in zip(samples, unannotated):
            sample.gt_sem_seg.data = sample.gt_sem_seg.data.masked_fill(mask, VOID)
        classes = [sample.metainfo.get('annotated_classes') for sample in samples]
        for loss in losses:
            if None not in classes:  # the pipeline is a client's
                loss.set_annotated_classes(*(classes if len(set(classes)) > 1 else classes[:1]))
            loss.set_unannotated(unannotated)

    hiding.undo = [model.register_forward_pre_hook(untraced(hide), with_kwargs=True).remove,
                   leave_out_unannotated(model, lambda: hiding.unannotated)]
    return hiding
