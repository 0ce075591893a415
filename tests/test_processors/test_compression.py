import numpy as np
import pytest
import torch

from fedseg_mm.errors import FedSegError
from fedseg_mm.processors import BFloat16Compression, Compression, Int8Compression, TopKCompression
from tests.test_processors.updates import SHAPES, clone, context, equal, flat, update

ALL = [BFloat16Compression, Int8Compression, lambda: TopKCompression(0.3)]


def num_bytes(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def through(compression, delta, where=None):
    """What arrives at the server."""
    like = {name: torch.full_like(tensor, float('nan')) for name, tensor in delta.items()}
    return compression.at_receipt(compression.at_client(clone(delta), where or context()), like)


@pytest.mark.parametrize('make', ALL)
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64, torch.bfloat16])
def test_shapes_and_types_come_back(make, dtype):
    for length in (0.0, 1e-3, 1.0):
        delta = update(1, dtype, length)
        received = through(make(), delta)
        assert received.keys() == delta.keys()
        for name, tensor in received.items():
            assert tensor.dtype == dtype and tensor.shape == SHAPES[name] and tensor.isfinite().all()
            if not length:
                assert not tensor.any()


@pytest.mark.parametrize('make', ALL)
def test_extreme_numbers_stay_finite(make):
    for dtype, numbers in ((torch.float32, [1e38, -1e38, 1e-45, 0]), (torch.float64, [1e38, 1e-300, -1e-320, 0]),
                           (torch.float16, [65504, -65504, 6e-8, 0]), (torch.float32, [1e-45, 2e-45, -1e-44, 0])):
        received = through(make(), dict(a=torch.tensor(numbers, dtype=dtype)), context(['a']))['a']
        assert received.isfinite().all()


@pytest.mark.parametrize('make', ALL)
def test_infinite_numbers_are_not_hidden(make):
    for bad in (float('inf'), float('nan')):
        received = through(make(), dict(a=torch.tensor([1.0, bad, 2.0])), context(['a']))['a']
        assert not received.isfinite().all()


@pytest.mark.parametrize('make', ALL)
def test_other_tensors_are_sent_as_they_are(make):
    """A variance of 0.001 beside a change of -100 would be negative if the change were rounded."""
    delta = {'bn.weight': torch.randn(40), 'bn.running_var': 100 * torch.randn(40)}
    compression, where = make(), context(['bn.weight'])
    payload = compression.at_client(clone(delta), where)
    assert [key for key in payload if key.startswith('bn.running')] == ['bn.running_var/whole']
    received = compression.at_receipt(payload, delta)
    assert torch.equal(received['bn.running_var'], delta['bn.running_var'])
    assert not torch.equal(received['bn.weight'], delta['bn.weight'])
    assert set(where.state) <= {'bn.weight'}


@pytest.mark.parametrize('make, share', [(BFloat16Compression, 0.5), (Int8Compression, 0.25),
                                         (lambda: TopKCompression(0.01), 0.02)])
def test_bytes_of_the_payload(make, share):
    delta = {'conv.weight': torch.randn(64, 32, 3, 3), 'head.weight': torch.randn(100, 100)}
    compression = make()
    payload = compression.at_client(delta, context(delta))
    assert num_bytes(payload) == pytest.approx(share * num_bytes(delta), rel=0.01)
    assert all(tensor.is_contiguous() for tensor in payload.values())
    assert compression.metrics() == dict(sent_share=num_bytes(payload) / num_bytes(delta))
    assert compression.metrics() == {}


@pytest.mark.parametrize('make', ALL)
def test_channels_last(make):
    delta = torch.randn(4, 3, 5, 2)
    one = through(make(), dict(a=delta), context(['a']))['a']
    compression = make()
    payload = compression.at_client(dict(a=delta.to(memory_format=torch.channels_last)), context(['a']))
    assert all(tensor.is_contiguous() for tensor in payload.values())
    other = compression.at_receipt(payload, dict(a=delta))['a']
    if isinstance(compression, Int8Compression):  # other numbers fall to the entries
        assert (one - other).abs().max() <= delta.abs().max() / 127
    else:
        assert torch.equal(one, other)


@pytest.mark.parametrize('make', ALL)
def test_nothing_to_send(make):
    compression = make()
    assert compression.at_client({}, context()) == {} and compression.at_receipt({}, {}) == {}
    assert compression.metrics() == {} and compression.state_dict() == {}


@pytest.mark.parametrize('make', ALL)
def test_wrong_payloads_are_named(make):
    compression = make()
    payload = compression.at_client({'a.b': torch.ones(3)}, context(['a.b']))
    with pytest.raises(ValueError, match='`a.b`, which the global model does not have'):
        compression.at_receipt(payload, {'a.c': torch.ones(3)})
    with pytest.raises(ValueError, match=r'`a.b` of shape \(3,\), but the global model\'s is \(4,\)'):
        compression.at_receipt({'a.b/whole': torch.ones(3)}, {'a.b': torch.ones(4)})


def test_the_base_is_abstract():
    with pytest.raises(TypeError):
        Compression()


# --- bfloat16 ----------------------------------------------------------------
def test_bfloat16_hand_computed():
    """1 + 2^-7 is the next number after 1; what lies between is rounded to the nearer."""
    delta = dict(a=torch.tensor([1., 1 + 2 ** -7, 1 + 2 ** -7 + 2 ** -9, -3.0]))
    received = through(BFloat16Compression(), delta, context(['a']))['a']
    assert received.tolist() == [1., 1 + 2 ** -7, 1 + 2 ** -7, -3.0]


def test_bfloat16_error():
    delta = dict(a=torch.randn(10_000, generator=torch.Generator().manual_seed(0)))
    np.testing.assert_allclose(flat(through(BFloat16Compression(), delta, context(['a']))), flat(delta), rtol=2 ** -8)


def test_bfloat16_leaves_16_bits_alone():
    """float16's largest number would become infinite on the way back."""
    delta = dict(a=torch.tensor([65504., 1 + 2 ** -10], dtype=torch.float16))
    assert equal(through(BFloat16Compression(), delta, context(['a'])), delta)


# --- int8 ----------------------------------------------------------------------
def test_int8_hand_computed():
    """The largest entry is 12.7, so that the scale is 0.1 and whole multiples of it are exact."""
    compression = Int8Compression()
    payload = compression.at_client(dict(a=torch.tensor([12.7, -6.35, 0., -12.7, 0.04])), context(['a']))
    values = payload['a/values'].tolist()
    assert payload['a/values'].dtype == torch.int8 and payload['a/scale'].item() == pytest.approx(0.1)
    assert values[0] in (126, 127) and values[3] in (-127, -126)  # up to rounding of the scale
    assert values[1] in (-64, -63) and values[2] == 0 and values[4] in (0, 1)


def test_int8_equals_its_definition():
    """In numpy, with the same uniform numbers."""
    delta = dict(a=torch.randn(7, 11, generator=torch.Generator().manual_seed(5)))
    compression, where = Int8Compression(), context(['a'])
    payload = compression.at_client(clone(delta), where)
    uniform = torch.rand(7, 11, generator=compression.generator(where)).numpy()
    scale = np.abs(delta['a'].numpy()).max() / np.float32(127)
    expected = np.clip(np.floor(delta['a'].numpy() / scale + uniform), -127, 127)
    assert np.array_equal(payload['a/values'].numpy(), expected)
    np.testing.assert_allclose(compression.at_receipt(payload, delta)['a'].numpy(), expected * scale, rtol=1e-6)


def test_int8_does_not_wrap_around():
    """127 + u is rounded to 128 where u is close to 1, and a scale of few bits leaves more than 127 levels."""
    for value, number in ((0.3, 1_000_000), (180 * 2 ** -149, 3)):
        payload = Int8Compression().at_client(dict(a=torch.full((number,), value)), context(['a']))
        assert payload['a/values'].min() >= 126


def test_int8_is_unbiased():
    """Mean over 4000 clients within five standard errors of the change, entry by entry; variance as derived."""
    delta = dict(a=torch.tensor([1.0, 0.5, 0.1234, -0.777, 0.001, 0.0, -1.0]))
    compression, number, scale = Int8Compression(), 4000, 1 / 127
    received = np.stack([flat(through(compression, delta, context(['a'], client=client))) for client in range(number)])
    share = np.mod(flat(delta) / scale, 1)
    variance = share * (1 - share) * scale ** 2
    assert (np.abs(received - flat(delta)) < scale * (1 + 1e-5)).all()
    assert (np.abs(received.mean(0) - flat(delta)) <= 5 * (variance / number) ** 0.5 + 1e-6).all()
    np.testing.assert_allclose(received.var(0)[1:5], variance[1:5], rtol=0.15)


def test_int8_is_determined_by_seed_round_and_client():
    delta = dict(a=torch.randn(200), b=torch.zeros(5))
    torch.manual_seed(1)
    first = Int8Compression().at_client(clone(delta), context('ab', seed=1, round=2, client=3))
    used = Int8Compression()
    used.at_client(clone(delta), context('ab', seed=1, round=0, client=0))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert equal(used.at_client(clone(delta), context('ab', seed=1, round=2, client=3)), first)
    assert torch.equal(torch.get_rng_state(), before)
    for place in (dict(seed=2, round=2, client=3), dict(seed=1, round=3, client=3), dict(seed=1, round=2, client=4)):
        assert not equal(used.at_client(clone(delta), context('ab', **place)), first)


# --- top-k ---------------------------------------------------------------------
def test_top_k_hand_computed():
    """Two of five entries; those left are remembered and sent when they have grown."""
    compression, where = TopKCompression(0.4), context(['a'])
    payload = compression.at_client(dict(a=torch.tensor([1., -5., 2., 4., 0.])), where)
    assert payload['a/indices'].dtype == torch.int32
    assert dict(zip(payload['a/indices'].tolist(), payload['a/values'].tolist())) == {1: -5., 3: 4.}
    assert compression.at_receipt(payload, dict(a=torch.empty(5)))['a'].tolist() == [0., -5., 0., 4., 0.]
    assert where.state['a'].tolist() == [1., 0., 2., 0., 0.]
    again = through(compression, dict(a=torch.tensor([3., 0., 1.5, 1., 1.])), where)['a']
    assert again.tolist() == [4., 0., 3.5, 0., 0.]
    assert where.state['a'].tolist() == [0., 0., 0., 1., 1.]


def test_top_k_equals_its_definition():
    """Per tensor, against a full sort; with at least one entry of each."""
    delta = update(2)
    received = through(TopKCompression(0.1, error_feedback=False), delta)
    for name, tensor in delta.items():
        entries = tensor.numpy().ravel()
        order = np.argsort(-np.abs(entries))[:max(round(0.1 * entries.size), 1)]
        expected = np.zeros_like(entries)
        expected[order] = entries[order]
        assert np.array_equal(received[name].numpy().ravel(), expected)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float16, 2e-3), (torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_error_feedback_loses_nothing(dtype, tolerance):
    """All that was sent and the memory add up to all changes."""
    compression, where = TopKCompression(0.05), context()
    changes, sent = [], []
    for round in range(30):
        changes.append(update(round, dtype))
        sent.append(flat(through(compression, changes[-1], where)))
    total = np.sum([flat(change) for change in changes], axis=0)
    remembered = flat({name: where.state[name] for name in changes[0]})
    assert np.abs(remembered).sum() > 0
    np.testing.assert_allclose(np.sum(sent, axis=0) + remembered, total, atol=tolerance)
    assert all(where.state[name].shape == SHAPES[name] for name in SHAPES)


def test_error_feedback_sends_every_entry():
    """Under a constant change, the mean of what is sent converges to it; without feedback it does not."""
    delta, rounds = dict(a=torch.tensor([8., 4., 2., 1.])), 400
    errors = {}
    for feedback in (True, False):
        compression, where = TopKCompression(0.25, feedback), context(['a'])
        mean = np.mean([flat(through(compression, delta, where)) for _ in range(rounds)], axis=0)
        errors[feedback] = np.abs(mean - flat(delta)).max()
        assert bool(where.state) == feedback
    assert errors[True] < 0.05 and errors[False] == 4


def test_small_changes_add_up_in_float16():
    """Beside 2048 float16 cannot add 0.5; the memory can."""
    compression, where = TopKCompression(0.5), context(['a'])
    for _ in range(8):
        through(compression, dict(a=torch.tensor([0.5, 30000.], dtype=torch.float16)), where)
    assert where.state['a'].dtype == torch.float32 and where.state['a'].tolist() == [4.0, 0.0]
    where.state['a'][0] = 2048
    through(compression, dict(a=torch.tensor([0.5, 30000.], dtype=torch.float16)), where)
    assert where.state['a'].tolist() == [2048.5, 0.0]


def test_the_change_is_not_modified():
    delta = update()
    given = clone(delta)
    for compression in (TopKCompression(0.3), TopKCompression(0.3, False), Int8Compression(), BFloat16Compression()):
        compression.at_client(given, context())
        assert equal(given, delta)


def test_everything_is_sent_with_ratio_1():
    delta = update()
    where = context()
    assert equal(through(TopKCompression(1), delta, where), delta)
    assert not any(tensor.any() for tensor in where.state.values())


def test_top_k_arguments():
    for bad in (0, 1.01, -0.1, '1', None):
        with pytest.raises(FedSegError, match=r'federated\.processors\.TopKCompression\.ratio'):
            TopKCompression(bad)
    with pytest.raises(FedSegError, match=r'federated\.processors\.TopKCompression\.error_feedback'):
        TopKCompression(0.1, error_feedback='yes')
