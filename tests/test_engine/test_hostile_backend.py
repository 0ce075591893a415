"""Hostile clients send what the attack makes of their updates; the others' are the same bits."""
import json

import cv2
import pytest
from mmengine.hooks import Hook

from fedseg_mm import FedSegError
from tests.conftest import assert_same_bits, tiny_config, weights_of
from tests.test_engine.test_federated_loop import Interrupt, model_weights, train

ALL = {'federated.partitioner': dict(type='ClassPartitioner', num_clients=4), 'federated.clients_per_round': 4,
       'federated.sampler': dict(type='AllClientsSampler'), 'federated.local_epochs': 1,
       'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9}


class Keep(Hook):
    """Keeps what every client of the last round was given and sent."""

    def before_round(self, runner, cohort, broadcast):
        self.sent, self.received = {}, {name: tensor.clone() for name, tensor in broadcast.weights.items()}

    def after_client(self, runner, update):
        self.sent[update.client] = {name: tensor.clone() for name, tensor in update.weights.items()}


def run(data, work_dir, attack=None, share=0.5, **changes):
    backend = {} if attack is None else {'federated.backend': dict(type='HostileBackend', attack=attack, share=share)}
    keep = Keep()
    runner = train(tiny_config(data, work_dir, **{**ALL, **backend, **changes}), keep)
    return runner, keep


def test_sign_flipping(tiny_data, tmp_path):
    honest, before = run(tiny_data, tmp_path / 'honest')
    runner, after = run(tiny_data, tmp_path / 'hostile', dict(type='SignFlip', scale=2.0))
    backend, trained = runner.train_loop.federation.backend, runner.train_loop.federation.algorithm.trained
    assert len(backend.hostile) == 2 and list(after.sent)[2:] == [c for c in before.sent if c in backend.hostile]
    assert_same_bits(before.received, after.received)
    for client in range(4):
        if client not in backend.hostile:
            assert_same_bits(before.sent[client], after.sent[client])
            continue
        for name, tensor in after.sent[client].items():
            own, received = before.sent[client][name], before.received[name]
            expected = received - 2 * (own - received) if name in trained else own
            assert tensor.allclose(expected, atol=1e-6), name
    log = (next(iter((tmp_path / 'hostile').glob('*/*.log')))).read_text()
    names = ', '.join(map(str, sorted(backend.hostile)))
    assert f'2 of 4 clients are hostile (SignFlip): {names}.' in log


def test_colluding_clients_know_the_honest_ones(tiny_data, tmp_path):
    _, before = run(tiny_data, tmp_path / 'honest')
    runner, after = run(tiny_data, tmp_path / 'hostile', dict(type='InnerProductManipulation', epsilon=1.0))
    backend, trained = runner.train_loop.federation.backend, runner.train_loop.federation.algorithm.trained
    honest = [client for client in range(4) if client not in backend.hostile]
    for client in backend.hostile:
        for name in trained:
            mean = sum(before.sent[one][name] - before.received[name] for one in honest) / len(honest)
            assert after.sent[client][name].allclose(before.received[name] - mean, atol=1e-6)


def test_flipped_labels_are_as_if_the_files_were(own_data, tmp_path):
    flipped, keep = run(own_data, tmp_path / 'flipped', dict(type='LabelFlip'), share=1.0)
    manifest = json.loads((tmp_path / 'flipped' / 'partition.json').read_text())
    names = manifest['class_names']
    for client in manifest['clients']:
        client['classes'] = [names[len(names) - 1 - names.index(name)] for name in client['classes']]
    (tmp_path / 'manifest.json').write_text(json.dumps(dict(clients=manifest['clients'])))
    for path in (own_data / 'ann_dir' / 'train').iterdir():
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        label[label < 4] = 3 - label[label < 4]
        cv2.imwrite(str(path), label)
    _, plain = run(own_data, tmp_path / 'plain', **{
        'federated.partitioner': str(tmp_path / 'manifest.json')})
    for client in range(4):
        for name, tensor in keep.sent[client].items():
            assert tensor.allclose(plain.sent[client][name], atol=1e-5), name


def test_nobody_hostile_is_the_local_backend(tiny_data, tmp_path):
    honest, _ = run(tiny_data, tmp_path / 'honest')
    nobody, _ = run(tiny_data, tmp_path / 'nobody', dict(type='SignFlip'), share=0.2)  # of 4, less than one
    assert_same_bits(model_weights(honest), model_weights(nobody))


def test_a_resumed_run_has_the_same_bits(tiny_data, tmp_path):
    changes = {'federated.clients_per_round': 2, 'federated.sampler': dict(type='UniformSampler'),
               'train_cfg.max_rounds': 3, 'federated.aggregator': dict(type='CoordinateMedian')}
    attack = dict(type='GaussianNoise')
    whole, _ = run(tiny_data, tmp_path / 'whole', attack, **changes)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(tiny_data, tmp_path / 'part', **{**ALL, **changes, 'federated.backend': dict(
            type='HostileBackend', attack=attack, share=0.5)}), Interrupt(1))
    run(tiny_data, tmp_path / 'part', attack, **changes, resume=True)
    assert_same_bits(weights_of(tmp_path / 'part' / 'round_3.pth'), weights_of(tmp_path / 'whole' / 'round_3.pth'))


@pytest.mark.parametrize('changes, sentence', [
    ({'federated.backend': dict(type='HostileBackend', attack=dict(type='SignFlipp'))},
     'unknown type `SignFlipp` in federated.backend.attack: did you mean `SignFlip`'),
    ({'federated.backend': dict(type='HostileBackend', attack=dict(type='SignFlip'), share=1.5)},
     'HostileBackend.share must be a number at least 0 and at most 1, but is 1.5'),
    ({'federated.backend': dict(type='HostileBackend', attack=dict(type='SignFlip')),
      'federated.processors': [dict(type='NormClipping', max_norm=1.0)]},
     'HostileBackend attacks updates as they are aggregated: leave out federated.processors')])
def test_what_makes_no_sense_is_refused(tiny_data, tmp_path, changes, sentence):
    with pytest.raises(FedSegError) as error:
        train(tiny_config(tiny_data, tmp_path, **{**ALL, **changes}))
    assert sentence in str(error.value)
