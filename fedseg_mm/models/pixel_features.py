"""Pixel embeddings and logits of any MMSegmentation head, without touching the head."""
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from fedseg_mm.errors import FedSegError


def classifying_head(model: nn.Module) -> nn.Module:
    """The decode head that decides; of a cascade, the last one.

    Raises:
        FedSegError: It does not classify pixels by a convolution.
    """
    heads = model.get_submodule('decode_head')
    head = heads[-1] if isinstance(heads, nn.ModuleList) else heads
    if not isinstance(getattr(head, 'conv_seg', None), nn.Conv2d):
        raise FedSegError(f'{type(head).__name__} does not classify pixel embeddings (it has no conv_seg), which this '
                          'algorithm works on: choose another decode head, or a method such as FedAvg with BackCELoss')
    return head


class PixelFeatures:
    """Catches what enters and leaves a segmentor's classifier.

    The embedding is taken before the head's dropout, where the head has one:
    what is compared between models should not have random holes.

    Args:
        model (nn.Module): An MMSegmentation segmentor.

    Raises:
        FedSegError: The segmentor's head does not classify by a convolution.
    """

    def __init__(self, model: nn.Module) -> None:
        self.head = classifying_head(model)
        self.classifier: nn.Module = self.head.get_submodule('conv_seg')
        self.channels: int = self.head.conv_seg.in_channels  # type: ignore[assignment, union-attr]
        self.num_logits: int = self.head.conv_seg.out_channels  # type: ignore[assignment, union-attr]
        self._embeddings: Tensor | None = None
        self._logits: Tensor | None = None
        self._before_dropout: Tensor | None = None

    @contextmanager
    def caught(self) -> Iterator['PixelFeatures']:
        """While this is open, every forward pass of the segmentor is caught."""
        dropout, conv_seg = getattr(self.head, 'dropout', None), self.classifier

        # a copy of the model has copies of these hooks, which must not catch
        def enter_dropout(module, args):
            if module is dropout:
                self._before_dropout = args[0]

        def enter_classifier(module, args):
            if module is conv_seg:
                before, self._before_dropout = self._before_dropout, None
                self._embeddings = args[0] if before is None else before

        def leave_classifier(module, args, output):
            if module is conv_seg:
                self._logits = output

        handles = [conv_seg.register_forward_pre_hook(enter_classifier),
                   conv_seg.register_forward_hook(leave_classifier)]
        if isinstance(dropout, nn.Module):
            handles.append(dropout.register_forward_pre_hook(enter_dropout))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self._embeddings = self._logits = self._before_dropout = None

    def take(self) -> tuple[Tensor, Tensor]:
        """Embeddings (N, D, h, w) and logits (N, C, h, w) of the last forward pass.

        Raises:
            FedSegError: The classifier did not run.
        """
        embeddings, logits = self._embeddings, self._logits
        self._embeddings = self._logits = None
        if embeddings is None or logits is None:
            raise FedSegError(f'{type(self.head).__name__} does not use its classifier (conv_seg), on whose input this '
                              'algorithm works: choose another decode head, or a method such as FedAvg with '
                              'BackCELoss')
        return embeddings, logits
