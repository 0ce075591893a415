"""What goes down to a client and what comes back."""
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from fedseg_mm.errors import FedSegError, shown
from fedseg_mm.validation import is_count

#: The layout of a message's bytes.
FORMAT = 'fedseg_mm message 2'
#: Bytes of names that a message may begin with; read, they take a hundred times as many.
MOST_NAMES = 1 << 24
#: How a number that JSON does not know is written.
_NOT_FINITE = ('nan', 'inf', '-inf')


def _is_bool(value) -> bool:
    return type(value) is bool


def _are_numbers(value) -> bool:
    return isinstance(value, dict) and all(
        isinstance(one, float) or (isinstance(one, int) and abs(one) < 1 << 53) or one in _NOT_FINITE
        for one in value.values())


def _are_groups_of_numbers(value) -> bool:
    return isinstance(value, list) and all(map(_are_numbers, value))


#: The fields and the groups of tensors of each kind of message.
_KINDS: dict[str, tuple[dict[str, Callable[[Any], bool]], tuple[str, ...]]] = {
    'Tensors': ({}, ('tensors', )),
    'Broadcast': (dict(round=is_count, hyperparameters=_are_groups_of_numbers), ('weights', 'extras')),
    'ClientUpdate': (dict(client=is_count, num_images=is_count, num_steps=is_count, metrics=_are_numbers,
                          is_finite=_is_bool, processed=_is_bool), ('weights', 'extras', 'payload')),
}


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Size of the tensors, in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _pack(kind: str, fields: Mapping, **groups: Mapping[str, Tensor]) -> bytes:
    """Groups of tensors and JSON as the bytes of a safetensors file, which cannot hold code."""
    tensors = {f'{group}/{name}': tensor.detach().contiguous() for group, named in groups.items()
               for name, tensor in named.items()}
    # tensors of a model may share their memory, which the format refuses
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if (place := tensor.untyped_storage().data_ptr()) in seen:
            tensors[name] = tensor.clone()
        seen.add(place)
    # one entry: of several, the order is another in every process, and equal messages are to have equal bytes
    return save(tensors, dict(head=json.dumps(dict(format=FORMAT, kind=kind, fields=fields))))


def _unpack(kind: str, message: bytes) -> tuple[dict, dict[str, dict[str, Tensor]]]:
    """The JSON and the groups of :func:`_pack`.

    Raises:
        FedSegError: The bytes are no such message.
    """
    damaged = f'the message is damaged or is not a fedseg_mm {kind}'
    names = int.from_bytes(message[:8], 'little')
    if names > MOST_NAMES:
        raise FedSegError(damaged)
    try:
        tensors = load(message)
        head = json.loads(json.loads(message[8:8 + names])['__metadata__']['head'])
        layout, found, fields = head['format'], head['kind'], dict(**head['fields'])
    except Exception as error:  # the readers of safetensors and of JSON may raise anything
        raise FedSegError(damaged) from error
    if layout != FORMAT or found != kind:
        raise FedSegError(f'the message is a {shown(found)} in the layout {shown(layout)}, but a {kind} in the layout '
                          f'{FORMAT} is needed: use the same version of fedseg_mm at both ends')
    fits, known = _KINDS[kind]
    for name in sorted(fields.keys() | fits.keys()):
        if name not in fields or name not in fits or not fits[name](fields[name]):
            raise FedSegError(f'{damaged}: its `{shown(name)}` is {shown(fields.get(name))}')
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition('/')
        if group not in known:
            raise FedSegError(f'{damaged}: it has a tensor {shown(name)}')
        groups.setdefault(group, {})[rest] = tensor
    return fields, groups


def pack_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors by name as bytes, which :func:`unpack_tensors` reads."""
    return _pack('Tensors', {}, tensors=tensors)


def unpack_tensors(message: bytes) -> dict[str, Tensor]:
    """Read what :func:`pack_tensors` gave.

    Raises:
        FedSegError: The bytes are something else.
    """
    return _unpack('Tensors', message)[1].get('tensors', {})


def _is_finite(tensor: Tensor) -> bool:
    if tensor.is_floating_point() and tensor.element_size() == 1:  # torch.isfinite does not take them
        tensor = tensor.float()
    return bool(torch.isfinite(tensor).all())


def layout_of(tensors: Mapping[str, Tensor]) -> str:
    """Names, types and shapes as one text, for ends that must have the same."""
    return json.dumps({name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()},
                      sort_keys=True)


def check_fits(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors that are not of the names, shapes and types of a model's.

    Args:
        tensors (Mapping[str, Tensor]): What came.
        like (Mapping[str, Tensor]): What it must be like.
        what (str): For the message, e.g. "the update of client 3".

    Raises:
        FedSegError: Names the first tensor that does not fit.
    """
    for name in sorted(tensors.keys() ^ like.keys()):
        raise FedSegError(f'{what} {"lacks" if name in like else "has an unknown tensor"} {name}: it is not of this '
                          'model')
    for name, tensor in tensors.items():
        expected = like[name]
        if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise FedSegError(f'{what} does not fit the model: {name} is {_describe(tensor)} there, but '
                              f'{_describe(expected)} here')


def _describe(tensor: Tensor) -> str:
    return f'{str(tensor.dtype).removeprefix("torch.")} of shape {tuple(tensor.shape)}'


@dataclass(frozen=True)
class Broadcast:
    """What the server sends to every client of a cohort.

    Args:
        round (int): The round, from 0.
        weights (Mapping[str, Tensor]): The global model's weights that
            clients share, by their names in the state_dict; to be read during
            this round only.
        extras (Mapping[str, Tensor]): What a method sends beside it.
        unshared (Mapping[str, Tensor]): The weights that clients keep to
            themselves, as a client has them that has not trained yet. They
            come with the model, not with a message: they are neither sent nor
            counted.
        hyperparameters (Sequence[Mapping[str, float]]): What the optimizer's
            parameter groups are set to, in their order: learning rates and
            whatever else schedules move.
    """
    round: int
    weights: Mapping[str, Tensor]
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    unshared: Mapping[str, Tensor] = field(default_factory=dict)
    hyperparameters: Sequence[Mapping[str, float]] = ()

    @property
    def model(self) -> Mapping[str, Tensor]:
        """The whole global model, as its state_dict."""
        return {**self.weights, **self.unshared} if self.unshared else self.weights

    @property
    def num_bytes(self) -> int:
        """Size of the tensors that are sent, in bytes."""
        return num_bytes(self.weights) + num_bytes(self.extras)

    def to_bytes(self) -> bytes:
        """The message, without what is not sent."""
        fields = dict(round=self.round, hyperparameters=[dict(group) for group in self.hyperparameters])
        return _pack('Broadcast', fields, weights=self.weights, extras=self.extras)

    @classmethod
    def from_bytes(cls, message: bytes, like: Mapping[str, Tensor]) -> 'Broadcast':
        """Read a message.

        Args:
            message (bytes): What :meth:`to_bytes` gave.
            like (Mapping[str, Tensor]): The shared weights of the model that
                it is for.

        Raises:
            FedSegError: It is damaged, or does not fit the model.
        """
        fields, groups = _unpack('Broadcast', message)
        weights = groups.get('weights', {})
        check_fits(weights, like, 'the broadcast')
        return cls(fields['round'], weights, groups.get('extras', {}), {}, fields['hyperparameters'])


@dataclass(frozen=True)
class ClientUpdate:
    """What a client sends back after its local training.

    Args:
        client (int): The client's id.
        weights (Mapping[str, Tensor]): The local model's shared weights. In
            one process these are the live tensors of the one model: take them
            in before the next client trains. Where there is a payload, only
            those that are not in it.
        num_images (int): Images that the client holds.
        num_steps (int): Batches that it trained on.
        metrics (Mapping[str, float]): Means over its batches, ``loss`` first
            of all.
        is_finite (bool): Whether all weights are finite.
        extras (Mapping[str, Tensor]): What a method sends beside it.
        unshared (Mapping[str, Tensor]): The weights that it keeps to itself.
            A server in the same process takes their mean over the cohort into
            the checkpoint; they are neither sent nor counted.
        payload (Mapping[str, Tensor], optional): What update processors have
            made of the change of the weights. Defaults to None: there are
            none.
        seconds (float, optional): How long the server has waited for it, where
            clients train side by side; it is not sent. Defaults to None: since
            the client before.
    """
    client: int
    weights: Mapping[str, Tensor]
    num_images: int
    num_steps: int
    metrics: Mapping[str, float]
    is_finite: bool = True
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    unshared: Mapping[str, Tensor] = field(default_factory=dict)
    payload: Mapping[str, Tensor] | None = None
    seconds: float | None = None

    @property
    def num_bytes(self) -> int:
        """Size of the tensors that are sent, in bytes."""
        return num_bytes(self.weights) + num_bytes(self.extras) + num_bytes(self.payload or {})

    def to_bytes(self) -> bytes:
        """The message, without what is not sent."""
        # what is not finite has no place in JSON
        metrics = {name: value if math.isfinite(value) else str(value) for name, value in self.metrics.items()}
        fields = dict(client=self.client, num_images=self.num_images, num_steps=self.num_steps, metrics=metrics,
                      is_finite=self.is_finite, processed=self.payload is not None)
        return _pack('ClientUpdate', fields, weights=self.weights, extras=self.extras, payload=self.payload or {})

    @classmethod
    def from_bytes(cls, message: bytes, like: Mapping[str, Tensor] | None = None) -> 'ClientUpdate':
        """Read a message.

        Args:
            message (bytes): What :meth:`to_bytes` gave.
            like (Mapping[str, Tensor], optional): The shared weights of the
                model that it is for; a payload is checked when it is decoded.
                Defaults to None: they are not checked.

        Raises:
            FedSegError: It is damaged, does not fit the model, or says it is
                finite and is not.
        """
        fields, groups = _unpack('ClientUpdate', message)
        weights, extras = groups.get('weights', {}), groups.get('extras', {})
        payload = groups.get('payload', {}) if fields.pop('processed') else None
        if like is not None and payload is None:
            check_fits(weights, like, f'the update of client {fields["client"]}')
        fields['metrics'] = {name: float(value) for name, value in fields['metrics'].items()}
        sent = (*weights.values(), *extras.values(), *(payload or {}).values())
        fields['is_finite'] = fields['is_finite'] and all(map(_is_finite, sent))
        return cls(weights=weights, extras=extras, payload=payload, **fields)


@dataclass(frozen=True)
class ClientFailure:
    """What stands in the place of an update that did not come.

    Args:
        client (int): The client's id.
        reason (str): What happened, in a sentence.
    """
    client: int
    reason: str
