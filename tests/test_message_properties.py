"""Messages of any content come back as they were; whatever else comes is refused in one sentence, or is a message."""
import json
import math
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedseg_mm import FedSegError
from fedseg_mm.structures import Broadcast, ClientUpdate
from fedseg_mm.structures.messages import pack_tensors, unpack_tensors
from tests.mutations import JSON, changed_bytes, changed_trees

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2]
COUNTS = st.integers(0, 2**53 - 1)
NUMBERS = st.floats() | st.integers(-2**50, 2**50)


@st.composite
def tensors(draw):
    """Tensors by name: of any bits, contiguous or not, some of which share their memory."""
    found = {}
    for name in draw(st.lists(st.text(max_size=8), max_size=4, unique=True)):
        dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.lists(st.integers(0, 4), max_size=3))
        size = math.prod(shape) * dtype.itemsize
        bits = torch.tensor(list(draw(st.binary(min_size=size, max_size=size))), dtype=torch.uint8)
        tensor = (bits % 2 if dtype == torch.bool else bits).view(dtype).view(shape)
        found[name] = tensor.transpose(0, -1) if shape and draw(st.booleans()) else tensor
        if draw(st.booleans()):
            found[f'{name}again'] = found[name]
    return found


@st.composite
def broadcasts(draw):
    groups = draw(st.lists(st.dictionaries(st.text(max_size=5), NUMBERS, max_size=3), max_size=2))
    return Broadcast(draw(COUNTS), draw(tensors()), draw(tensors()), {}, groups)


@st.composite
def updates(draw):
    payload = draw(st.none() | tensors())
    return ClientUpdate(draw(COUNTS), draw(tensors()), draw(COUNTS), draw(COUNTS),
                        draw(st.dictionaries(st.text(max_size=5), st.floats(), max_size=3)), draw(st.booleans()),
                        draw(tensors()), {}, payload)


def bits(value):
    """What can be compared: names, types, shapes and bits of tensors, and all else as text, in which NaN is NaN."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.contiguous().view(-1).view(torch.uint8).tolist()
    if isinstance(value, dict):
        return {name: bits(one) for name, one in value.items()}
    return repr(value)


def content(message) -> dict:
    fields = {name: bits(value) for name, value in vars(message).items()}
    if isinstance(message, ClientUpdate):
        sent = [*message.weights.values(), *message.extras.values(), *(message.payload or {}).values()]
        finite = all(bool((one.float() if one.itemsize == 1 else one).isfinite().all()) for one in sent)
        fields['is_finite'] = message.is_finite and finite  # whoever receives it sees for himself
    return fields


@given(broadcasts())
def test_a_broadcast_comes_back(message):
    assert content(Broadcast.from_bytes(message.to_bytes(), message.weights)) == content(message)


@given(updates())
def test_an_update_comes_back(message):
    assert content(ClientUpdate.from_bytes(message.to_bytes())) == content(message)
    assert content(ClientUpdate.from_bytes(message.to_bytes(), message.weights)) == content(message)


@given(tensors())
def test_tensors_come_back(named):
    assert bits(unpack_tensors(pack_tensors(named))) == bits(named)


def read(kind, message: bytes) -> None:
    """A message that is refused in one sentence, or read: then it is one that could have been sent."""
    try:
        if kind is Broadcast:
            like = unpack_tensors_of_any(message)
            found = Broadcast.from_bytes(message, like)
            again = Broadcast.from_bytes(found.to_bytes(), found.weights)
        else:
            found = ClientUpdate.from_bytes(message)
            again = ClientUpdate.from_bytes(found.to_bytes())
    except FedSegError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
        return
    assert content(again) == content(found)
    held = [*found.weights.values(), *found.extras.values(), *(getattr(found, 'payload', None) or {}).values()]
    assert sum(one.numel() * one.element_size() for one in held) <= len(message)


def unpack_tensors_of_any(message: bytes) -> dict:
    """The shared weights of whatever model the message may be for."""
    from fedseg_mm.structures.messages import _unpack
    return _unpack('Broadcast', message)[1].get('weights', {})


EXAMPLE = dict(a=torch.arange(6.).view(2, 3), b=torch.tensor([1, 2]))
MESSAGES = [Broadcast(3, EXAMPLE, dict(c=torch.ones(1)), {}, [dict(lr=0.1, nesterov=False)]),
            ClientUpdate(1, EXAMPLE, 5, 7, dict(loss=0.5, odd=math.nan), True, dict(c=torch.ones(1)), {},
                         dict(d=torch.zeros(3)))]


@pytest.mark.parametrize('message', MESSAGES, ids=lambda message: type(message).__name__)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_are_a_message(message, data):
    read(type(message), data.draw(changed_bytes(message.to_bytes()) | st.binary(max_size=50)))


@pytest.mark.parametrize('message', MESSAGES, ids=lambda message: type(message).__name__)
@given(data=st.data())
def test_false_words_are_refused_or_are_a_message(message, data):
    """The names, types, shapes and places of tensors, and the fields, are whatever the sender has thought of."""
    whole = message.to_bytes()
    length = int.from_bytes(whole[:8], 'little')
    words, body = json.loads(whole[8:8 + length]), whole[8 + length:]
    head = json.loads(words['__metadata__']['head'])
    if data.draw(st.booleans()):
        words['__metadata__']['head'] = json.dumps(data.draw(changed_trees(head)))
    else:
        words = data.draw(changed_trees(words))
        names = [name for name in words if '/' in name] if isinstance(words, dict) else []
        for name in data.draw(st.lists(st.sampled_from(names), max_size=2)) if names else ():
            words[name] = dict(dtype=data.draw(st.sampled_from(['F4', 'F6_E2M3', 'F8_E8M0', 'U32', 'C64', 'BOOL'])),
                               shape=data.draw(st.lists(st.integers(0, 2**64), max_size=3)), data_offsets=[0, 0])
    text = json.dumps(words).encode()
    read(type(message), struct.pack('<Q', len(text)) + text + body)


@pytest.mark.parametrize('head', ['[' * 200_000, '{"a":' * 200_000, '{"format": 1, "kind": 2, "fields": [[1, 2]]}'])
def test_words_that_no_reader_likes(head):
    text = json.dumps({'__metadata__': dict(head=head)}).encode()
    with pytest.raises(FedSegError, match='^the message is damaged or is not a fedseg_mm ClientUpdate$'):
        ClientUpdate.from_bytes(struct.pack('<Q', len(text)) + text)


@given(st.dictionaries(st.sampled_from(['client', 'num_images', 'num_steps', 'metrics', 'is_finite', 'processed']),
                       JSON, min_size=1))
def test_fields_of_an_update_are_of_their_types(changes):
    whole = MESSAGES[1].to_bytes()
    words = json.loads(whole[8:8 + int.from_bytes(whole[:8], 'little')])
    head = json.loads(words['__metadata__']['head'])
    head['fields'].update(changes)
    text = json.dumps({'__metadata__': dict(head=json.dumps(head))}).encode()
    read(ClientUpdate, struct.pack('<Q', len(text)) + text)
