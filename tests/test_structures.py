"""What a client tells: every field of an update and of the logs, so that a new one is noticed."""
import dataclasses
import json

import torch

from fedseg_mm.structures import Broadcast, ClientFailure, ClientUpdate
from fedseg_mm.structures.messages import pack_tensors
from tests.conftest import tiny_config
from tests.test_engine.test_federated_loop import train
from tests.test_processors.test_differential_privacy import PRIVATE, processor, rounds_of

#: A field that is not listed here may tell of a client's images: think first, then list it here and in docs/privacy.md.
UPDATE = {'client', 'weights', 'num_images', 'num_steps', 'metrics', 'is_finite', 'extras', 'unshared', 'payload',
          'seconds'}
#: Of an update, the numbers in the message, and the groups of tensors.
MESSAGE = {'client', 'num_images', 'num_steps', 'metrics', 'is_finite', 'processed'}
GROUPS = {'weights', 'extras', 'payload'}
ROUND = {'round', 'cohort', 'time', 'eta', 'images', 'bytes_down', 'bytes_up', 'clients'}
CLIENT = {'client', 'name', 'images', 'steps', 'time', 'used'}
PRIVACY = {'epsilon', 'delta', 'adjacency', 'noise_multiplier', 'noise_std', 'clip', 'reproducible'}
#: Of a private round, what depends on clients, emptied.
EMPTIED = dict(cohort=[], clients=[], images=0, bytes_down=0, bytes_up=0)


def test_an_update_has_these_fields():
    assert {field.name for field in dataclasses.fields(ClientUpdate)} == UPDATE
    assert {field.name for field in dataclasses.fields(ClientFailure)} == {'client', 'reason'}
    tensors = dict(a=torch.ones(1))
    message = ClientUpdate(1, tensors, 2, 3, dict(loss=1.0), True, tensors, tensors, tensors).to_bytes()
    head = json.loads(message[8:8 + int.from_bytes(message[:8], 'little')])
    assert set(json.loads(head['__metadata__']['head'])['fields']) == MESSAGE
    assert {name.partition('/')[0] for name in head if name != '__metadata__'} == GROUPS


def test_logs_have_these_fields(tiny_data, tmp_path):
    one_round = {'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 2, 'val_dataloader': None,
                 'val_evaluator': None, 'val_cfg': None, 'default_hooks.checkpoint.save_best': None}
    plain = train(tiny_config(tiny_data, tmp_path / 'plain', **one_round))
    line, = rounds_of(tmp_path / 'plain')
    metrics = set(plain.train_loop.round_log.scalars())
    assert metrics == {'loss', 'decode.loss_back_ce', 'decode.acc_seg'}
    assert line.keys() == ROUND and all(client.keys() == CLIENT | metrics for client in line['clients'])
    private = train(tiny_config(tiny_data, tmp_path / 'private', **{**PRIVATE, **processor(), **one_round}))
    line, = rounds_of(tmp_path / 'private')
    assert line.keys() == ROUND | {'privacy'} and line['privacy'].keys() == PRIVACY
    assert {name: line[name] for name in EMPTIED} == EMPTIED
    assert private.train_loop.round_log.scalars() == {}
    assert set(private.train_loop.round_log.flat()) == {'privacy/epsilon', 'privacy/clip'}


def test_equal_messages_have_equal_bytes():
    weights = {f'layer.{index}': torch.full((3, ), float(index)) for index in range(20)}
    assert len({Broadcast(3, weights).to_bytes() for _ in range(10)}) == 1
    assert len({pack_tensors(dict(reversed(weights.items()))) for _ in range(5)} | {pack_tensors(weights)}) == 1
