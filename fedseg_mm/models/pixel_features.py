"""What a segmentor's decode head starts from and decides by, for any MMSegmentation head, without touching it."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

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
                          'algorithm needs: choose another decode head, or a method such as FedAvg with BackCELoss')
    return head


def head_input_channels(head) -> int:
    """Channels of :attr:`PixelMaps.head_input`."""
    channels: int | Sequence[int] = head.in_channels
    return channels[-1] if isinstance(channels, Sequence) else channels


class PixelMaps:
    """The maps of one forward pass.

    Args:
        head (nn.Module): The decode head.
        inputs: What the backbone, or the neck where there is one, gave it.
        embeddings (Tensor): What enters its classifier, (N, D, h, w).
        logits (Tensor): What leaves the classifier, (N, C, h, w).
    """

    def __init__(self, head, inputs: Tensor | Sequence, embeddings: Tensor, logits: Tensor) -> None:
        self._head = head
        self._inputs = inputs
        self.embeddings = embeddings
        self.logits = logits

    @cached_property
    def head_input(self) -> Tensor:
        """The map that enters the decode head, (N, channels, h', w').

        It is the one that the head's ``in_index`` names, or with
        ``input_transform='resize_concat'`` all that it names, concatenated. A
        head that takes several maps as they are (UPerHead, SegformerHead,
        FPNHead, …) starts from the last of them here: it is the deepest, so
        that whatever is asked of it is asked of the whole backbone, and it
        alone holds what classes are told apart by.
        """
        inputs = self._inputs
        if not isinstance(inputs, Tensor):
            own = self._head._transform_inputs(inputs)
            own = own[-1] if isinstance(own, (list, tuple)) else own
            inputs = own if isinstance(own, Tensor) else own[0]  # a transformer's map stands beside its class token
            channels = head_input_channels(self._head)
            if inputs.shape[1] != channels:  # PIDHead, in training, takes three maps and decides by one of them
                inputs = next(one for one in self._inputs if one.shape[1] == channels)
        return inputs


class MissingMaps:
    """In the place of both :class:`PixelMaps` and what catches them, where a head has none.

    Args:
        error (FedSegError): What whoever asks for a map is told.
    """

    def __init__(self, error: FedSegError) -> None:
        self.__dict__['error'] = error

    @contextmanager
    def caught(self) -> Iterator['MissingMaps']:
        """Catch nothing."""
        yield self

    def take(self) -> 'MissingMaps':
        """Maps that are not there."""
        return self

    def __getattr__(self, name: str):
        if name in ('embeddings', 'logits', 'head_input'):
            raise self.error
        raise AttributeError(name)


class PixelFeatures:
    """Catches what enters a segmentor's decode head, and what enters and leaves its classifier.

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
        neck = getattr(model, 'neck', None)
        #: What makes the maps that the head takes.
        self.extractor: nn.Module = neck if isinstance(neck, nn.Module) else model.get_submodule('backbone')
        self.channels: int = self.head.conv_seg.in_channels  # type: ignore[assignment, union-attr]
        self.num_logits: int = self.head.conv_seg.out_channels  # type: ignore[assignment, union-attr]
        self._clear()

    def _clear(self) -> None:
        self._inputs: Tensor | Sequence | None = None
        self._embeddings: Tensor | None = None
        self._logits: Tensor | None = None
        self._before_dropout: Tensor | None = None

    @contextmanager
    def caught(self) -> Iterator['PixelFeatures']:
        """While this is open, every forward pass of the segmentor is caught."""
        dropout, conv_seg, extractor = getattr(self.head, 'dropout', None), self.classifier, self.extractor

        # a copy of the model has copies of these hooks, which must not catch
        def leave_extractor(module, args, output):
            if module is extractor:
                self._inputs = output

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

        handles = [extractor.register_forward_hook(leave_extractor),
                   conv_seg.register_forward_pre_hook(enter_classifier),
                   conv_seg.register_forward_hook(leave_classifier)]
        if isinstance(dropout, nn.Module):
            handles.append(dropout.register_forward_pre_hook(enter_dropout))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self._clear()

    def take(self) -> PixelMaps:
        """The maps of the last forward pass.

        Raises:
            FedSegError: The classifier did not run.
        """
        inputs, embeddings, logits = self._inputs, self._embeddings, self._logits
        self._clear()
        if inputs is None or embeddings is None or logits is None:
            raise FedSegError(f'{type(self.head).__name__} does not use its classifier (conv_seg), whose input this '
                              'algorithm needs: choose another decode head, or a method such as FedAvg with '
                              'BackCELoss')
        return PixelMaps(self.head, inputs, embeddings, logits)
