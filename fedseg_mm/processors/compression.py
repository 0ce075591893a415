"""Base of the compressions: an update in fewer bytes."""
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from fedseg_mm.processors.update_processor import ProcessorContext, UpdateProcessor

#: The part of a tensor that is sent as it is.
WHOLE = 'whole'


class Compression(UpdateProcessor, ABC):
    """Encodes the trained parameters of an update, tensor by tensor.

    Every tensor becomes one or more parts, and the payload's keys are
    ``'name/part'``, such as ``'backbone.conv1.weight/values'``. The payload is
    what would be sent: its size in bytes is the size of the message.

    Other tensors are sent as they are, as ``'name/whole'``. They are small,
    and the statistics of batch normalisation do not tolerate errors: a
    variance that is off by a small share of the largest one in its layer may
    be negative, and what error feedback remembers of a statistic is stale.

    Metrics: ``sent_share``, bytes of the payloads relative to those of the
    updates.
    """

    encodes = True

    def __init__(self) -> None:
        super().__init__()
        self._given = self._sent = 0  # bytes

    @abstractmethod
    def encode(self, name: str, tensor: Tensor, context: ProcessorContext,
               generator: torch.Generator) -> dict[str, Tensor]:
        """Encode the change of one parameter.

        Args:
            name (str): The parameter's name.
            tensor (Tensor): Its change, of any shape; may be empty.
            context (ProcessorContext): The client and the round.
            generator (torch.Generator): On the tensor's device, seeded for
                this client and round.

        Returns:
            dict[str, Tensor]: The parts by name, without '/' in it.
        """

    @abstractmethod
    def decode(self, parts: Mapping[str, Tensor], like: Tensor) -> Tensor:
        """Recover the change of one parameter.

        Args:
            parts (Mapping[str, Tensor]): What :meth:`encode` returned.
            like (Tensor): A tensor of the parameter's shape and type.
        """

    def at_client(self, delta: dict[str, Tensor], context: ProcessorContext) -> dict[str, Tensor]:
        payload: dict[str, Tensor] = {}
        if not delta:
            return payload
        generator = self.generator(context, next(iter(delta.values())).device)
        for name, tensor in delta.items():
            encoded = self.encode(name, tensor, context, generator) if name in context.trained else {WHOLE: tensor}
            payload.update((f'{name}/{part}', value.contiguous()) for part, value in encoded.items())
        self._given += sum(tensor.nbytes for tensor in delta.values())
        self._sent += sum(tensor.nbytes for tensor in payload.values())
        return payload

    def at_receipt(self, payload: dict[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Decode every tensor.

        Raises:
            ValueError: A tensor is unknown or has another shape than the one
                in ``like``; names it.
        """
        encoded: dict[str, dict[str, Tensor]] = {}
        for key, value in payload.items():
            name, _, part = key.rpartition('/')
            encoded.setdefault(name, {})[part] = value
        delta = {}
        for name, parts in encoded.items():
            if name not in like:
                raise ValueError(f'an update holds `{name}`, which the global model does not have')
            delta[name] = parts[WHOLE] if WHOLE in parts else self.decode(parts, like[name])
            if delta[name].shape != like[name].shape:
                raise ValueError(f'an update holds `{name}` of shape {tuple(delta[name].shape)}, but the global '
                                 f"model's is {tuple(like[name].shape)}")
        return delta

    def metrics(self) -> dict[str, float]:
        if not self._given:
            return {}
        share = self._sent / self._given
        self._given = self._sent = 0
        return dict(sent_share=share)
