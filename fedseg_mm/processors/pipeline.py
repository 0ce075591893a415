"""The update processors of a federation, in order."""
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedseg_mm.errors import FedSegError
from fedseg_mm.processors.differential_privacy import DifferentialPrivacy
from fedseg_mm.processors.update_processor import ProcessorContext, UpdateProcessor


class ProcessorPipeline:
    """Applies update processors one after the other; with none, updates stay as they are.

    States of the processors are kept apart by position and class name, as in
    ``'0.TopKCompression/decode_head.conv_seg.weight'``.

    Args:
        processors (Sequence[UpdateProcessor]): In the order of the config.

    Raises:
        FedSegError: A processor that encodes updates is not the last.
    """

    def __init__(self, processors: Sequence[UpdateProcessor] = ()) -> None:
        self.processors = tuple(processors)
        self._names = [f'{i}.{type(processor).__name__}' for i, processor in enumerate(self.processors)]
        for processor in self.processors[:-1]:
            if processor.encodes:
                raise FedSegError(f'federated.processors: {type(processor).__name__} encodes the update, so it '
                                  f'must come last, but {type(self.processors[-1]).__name__} does')

    @property
    def needs_equal_weights(self) -> bool:
        """Whether a processor is correct only if all updates have weight 1 in the mean."""
        return any(processor.needs_equal_weights for processor in self.processors)

    @property
    def privacy(self) -> DifferentialPrivacy | None:
        """What protects clients and keeps the account; None where they are not protected."""
        return next((one for one in self.processors if isinstance(one, DifferentialPrivacy)), None)

    def setup(self, seed: int) -> None:
        """Take the seed of the run, before training."""
        for processor in self.processors:
            processor.setup(seed)

    @torch.no_grad()
    def at_client(self, delta: dict[str, Tensor], context: ProcessorContext) -> dict[str, Tensor]:
        """Make the payload of a client's update.

        Args:
            delta (dict[str, Tensor]): Local minus received, floating point
                tensors by name; may be modified in place.
            context (ProcessorContext): The client and the round; its state
                holds that of all processors.

        Returns:
            dict[str, Tensor]: What is sent, contiguous tensors.

        Raises:
            FedSegError: A processor before the last returns other names than
                it was given.
        """
        payload = delta
        for name, processor in zip(self._names, self.processors):
            given = set(payload)
            own = replace(context, state=_part(context.state, name))
            payload = processor.at_client(payload, own)
            for key in [key for key in context.state if key.startswith(f'{name}/')]:
                del context.state[key]
            context.state.update(_prefixed(own.state, name))
            if processor is not self.processors[-1] and set(payload) != given:
                raise FedSegError(f'federated.processors: {type(processor).__name__} must return the tensors that it '
                                  'is given, because it is not the last: put it last and set its `encodes = True`')
        return {key: tensor.contiguous() for key, tensor in payload.items()}

    @torch.no_grad()
    def at_receipt(self, payload: dict[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Recover the delta that is aggregated: the last processor's part.

        Args:
            payload (dict[str, Tensor]): What :meth:`at_client` returned.
            like (Mapping[str, Tensor]): Tensors with the names, shapes and
                types of the delta.
        """
        return self.processors[-1].at_receipt(payload, like) if self.processors else payload

    @torch.no_grad()
    def at_server(self, delta: dict[str, Tensor], total: float, round: int) -> dict[str, Tensor]:
        """Process the combined change.

        Args:
            delta (dict[str, Tensor]): The aggregator's result minus the
                global model; may be modified in place.
            total (float): The sum of the updates' weights.
            round (int): The round, from 0.
        """
        for processor in self.processors:
            delta = processor.at_server(delta, total, round)
        return delta

    def metrics(self) -> dict[str, float]:
        """Figures of all processors since the last call; equal names are told apart as in :meth:`state_dict`."""
        figures = [processor.metrics() for processor in self.processors]
        number = Counter(key for own in figures for key in own)
        return {key if number[key] == 1 else f'{name}/{key}': value
                for name, own in zip(self._names, figures) for key, value in own.items()}

    def state_dict(self) -> dict:
        """Server state of all processors."""
        return {key: value for name, processor in zip(self._names, self.processors)
                for key, value in _prefixed(processor.state_dict(), name).items()}

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            FedSegError: The state is that of other processors.
        """
        unknown = {key.partition('/')[0] for key in state} - set(self._names)
        if unknown:
            raise FedSegError(f'federated.processors: the checkpoint holds the state of {min(unknown)}, but the '
                              f'processors are {", ".join(self._names) or "none"}: list those that it was trained with')
        for name, processor in zip(self._names, self.processors):
            own = _part(state, name)
            if own:
                processor.load_state_dict(own)


def _part(state: Mapping, name: str) -> dict:
    """The entries of one processor, under its own keys."""
    return {key.removeprefix(f'{name}/'): value for key, value in state.items() if key.startswith(f'{name}/')}


def _prefixed(state: Mapping, name: str) -> dict:
    """The entries of one processor, under keys that no other has."""
    return {f'{name}/{key}': value for key, value in state.items()}
