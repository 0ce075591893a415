"""The seam between a federation and where its clients train."""
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from fedseg_mm import FedSegError
from fedseg_mm.structures import Broadcast, ClientUpdate
from tests.conftest import assert_same_bits, write_config
from tests.test_engine import fresh_process_backend  # noqa: F401  registers it
from tests.test_engine.test_federated_loop import model_weights, train


def run(data, work_dir, backend=None, **changes):
    config = write_config(data, work_dir, **{
        'federated.clients_per_round': 2, 'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 9,
        'federated.local_epochs': 1, **changes})
    cfg = Config.fromfile(config)
    if backend is not None:
        cfg.federated.backend = dict(type='FreshProcessBackend', config=config, **backend)
    return train(cfg)


def rounds_of(runner):
    path, = Path(runner.work_dir).glob('*/vis_data/rounds.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_fresh_processes_that_are_told_all_by_messages_give_the_same_bits(tiny_data, tmp_path):
    """With a schedule that moves the rate, a second quantity in the messages and a state on disk."""
    changes = {'federated.algorithm': dict(type='SCAFFOLD')}
    here = run(tiny_data, tmp_path / 'here', **changes)
    there = run(tiny_data, tmp_path / 'there', {}, **changes)
    assert_same_bits(model_weights(here), model_weights(there))
    first, second = (rounds_of(runner) for runner in (here, there))
    for one, other in zip(first, second, strict=True):
        assert [client['loss'] for client in one['clients']] == [client['loss'] for client in other['clients']]
        # the tensors are counted; around them are names and shapes
        for counted, message in ((other['bytes_down'] / 2, 0), (other['bytes_up'] / 2, 1)):
            sent = there.train_loop.federation.backend.bytes[0][message]
            assert counted < sent < counted + 150 * 2 * len(model_weights(there))


def test_a_client_that_fails_is_left_out_and_named(tiny_data, tmp_path):
    changes = {'train_cfg.max_rounds': 1, 'federated.partitioner': dict(type='ClassPartitioner', num_clients=4),
               'federated.clients_per_round': 4}
    runner = run(tiny_data, tmp_path, dict(failing=2), **changes)
    line, = rounds_of(runner)
    assert [client['client'] for client in line['clients'] if not client['used']] == [2]
    assert next(client for client in line['clients'] if client['client'] == 2)['reason'] == 'its process did not start'
    assert line['images'] == sum(client['images'] for client in line['clients'] if client['used'])


# --- messages ---------------------------------------------------------------
def tensors():
    """Types, shapes and layouts that models have."""
    torch.manual_seed(0)
    base = torch.randn(4, 3, 2, 2)
    return {'conv.weight': base.to(memory_format=torch.channels_last), 'half': torch.randn(3).half(),
            'bf16': torch.randn(5).bfloat16(), 'double': torch.randn(2, dtype=torch.float64),
            'count': torch.tensor(7), 'mask': torch.tensor([True, False]), 'empty': torch.zeros(0, 3),
            'transposed': torch.randn(2, 3).T, 'again': base, 'view': base[1:]}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype and torch.equal(tensor, second[name])


def test_a_broadcast_survives_bytes():
    sent = Broadcast(3, tensors(), dict(control=torch.ones(2)), dict(own=torch.ones(1)),
                     [dict(lr=0.1, weight_decay=0.0, nesterov=False), dict(lr=1.0)])
    read = Broadcast.from_bytes(sent.to_bytes(), tensors())
    assert_equal(sent.weights, read.weights)
    assert_equal(sent.extras, read.extras)
    assert (read.round, list(read.hyperparameters), read.unshared) == (3, sent.hyperparameters, {})


@pytest.mark.parametrize('payload', [None, {}, {'conv.weight/values': torch.arange(4, dtype=torch.int8)}])
def test_an_update_survives_bytes(payload):
    sent = ClientUpdate(5, {} if payload else tensors(), 10, 4, dict(loss=0.1, other=float('nan')), True,
                        dict(control=torch.ones(2)), dict(own=torch.ones(1)), payload)
    read = ClientUpdate.from_bytes(sent.to_bytes(), tensors() if payload is None else None)
    assert_equal(sent.weights, read.weights)
    assert_equal(sent.extras, read.extras)
    assert (read.payload is None) == (payload is None)
    assert_equal(sent.payload or {}, read.payload or {})
    assert (read.client, read.num_images, read.num_steps, read.is_finite, read.unshared) == (5, 10, 4, True, {})
    assert read.metrics['loss'] == 0.1 and read.metrics['other'] != read.metrics['other']


def test_an_update_that_says_it_is_finite_and_is_not():
    lie = ClientUpdate(0, dict(w=torch.tensor([1.0, float('inf')])), 1, 1, {})
    assert not ClientUpdate.from_bytes(lie.to_bytes()).is_finite


@pytest.mark.parametrize('other, sentence', [
    (dict(w=torch.zeros(3)), r'w is float32 of shape \(2,\) there, but float32 of shape \(3,\) here'),
    (dict(w=torch.zeros(2).double()), 'w is float32 .* but float64'),
    (dict(w=torch.zeros(2), v=torch.zeros(1)), 'lacks v'), ({}, 'has an unknown tensor w')])
def test_what_does_not_fit_the_model_is_refused_by_name(other, sentence):
    weights = dict(w=torch.zeros(2))
    with pytest.raises(FedSegError, match=f'the broadcast .*{sentence}'):
        Broadcast.from_bytes(Broadcast(0, weights).to_bytes(), other)
    with pytest.raises(FedSegError, match=f'the update of client 3 .*{sentence}'):
        ClientUpdate.from_bytes(ClientUpdate(3, weights, 1, 1, {}).to_bytes(), other)


@pytest.mark.parametrize('spoil', [
    lambda message: b'', lambda message: b'\x80\x04K\x01.', lambda message: message[:-3],
    lambda message: message.replace(b'fedseg_mm message 2', b'fedseg_mm message 9'),
    lambda message: message.replace(rb'\"Broadcast\"', rb'\"Broadcasd\"'),
    lambda message: b'\xff' * 8 + message[8:]])
def test_a_message_that_is_none_is_one_sentence(spoil):
    message = Broadcast(0, dict(w=torch.zeros(2))).to_bytes()
    with pytest.raises(FedSegError, match='^the message is'):
        Broadcast.from_bytes(spoil(message), dict(w=torch.zeros(2)))
    with pytest.raises(FedSegError, match='the message is a Broadcast'):
        ClientUpdate.from_bytes(message)
