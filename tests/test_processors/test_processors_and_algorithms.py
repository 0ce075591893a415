"""Whole rounds with every update processor, named in a config."""
import json

import pytest
import torch
from mmengine.hooks import Hook

from fedseg_mm.registry import UPDATE_PROCESSORS
from fedseg_mm.structures import ClientUpdate
from tests.conftest import assert_same_bits, run_tool, tiny_config, weights_of, write_config
from tests.test_cli.test_train_errors import refuse_quickly
from tests.test_engine.test_federated_loop import model_weights, train

OWN_PROCESSOR = '''\
"""An update processor of the user's own."""
from fedseg_mm.processors import UpdateProcessor
from fedseg_mm.registry import UPDATE_PROCESSORS


@UPDATE_PROCESSORS.register_module()
class Halved(UpdateProcessor):
    """Half of every change leaves, and half of what arrives is used."""

    def at_client(self, delta, context):
        return {name: tensor / 2 for name, tensor in delta.items()}

    def at_server(self, delta, total, round):
        return {name: tensor / 2 for name, tensor in delta.items()}

    def metrics(self):
        return dict(kept=0.25)
'''


class Recorder(Hook):
    """Keeps what was given and sent, round by round, as it travels."""

    def __init__(self):
        self.rounds = []

    def before_round(self, runner, cohort, broadcast):
        self.rounds.append(({name: tensor.clone() for name, tensor in broadcast.weights.items()}, []))

    def after_client(self, runner, update):
        # through bytes: what the server aggregates needs nothing else
        again = ClientUpdate.from_bytes(update.to_bytes())
        self.rounds[-1][1].append((runner.train_loop.federation.algorithm.restore(again), update.num_bytes))


def run(data, work_dir, processors, **changes):
    recorder = Recorder()
    runner = train(tiny_config(data, work_dir, **{
        'federated.processors': processors, 'federated.local_epochs': 1, 'train_cfg.max_rounds': 2,
        'train_cfg.val_interval': 2, **changes}), recorder)
    return runner, recorder


def rounds_of(folder):
    path, = folder.glob('*/vis_data/rounds.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


EQUAL = dict(type='FedAvg', weighting='equal')


@pytest.mark.parametrize('processors, algorithm', [
    ([dict(type='NormClipping', max_norm=0.05)], dict(type='FedAvg')),
    ([dict(type='BFloat16Compression')], dict(type='FedDyn', alpha=0.1)),
    ([dict(type='Int8Compression')], dict(type='FedAdam')),
    ([dict(type='TopKCompression', ratio=0.1)], dict(type='FedSeg', start_round=0)),
    ([dict(type='TopKCompression', ratio=0.1)], dict(type='SCAFFOLD')),
    ([dict(type='NormClipping', max_norm=0.05), dict(type='Int8Compression')], dict(type='FedBN')),
    ([dict(type='GaussianMechanism', noise_multiplier=0.1, max_norm=0.05)], EQUAL)])
def test_algorithms_run_with_any_processor(tiny_data, tmp_path, processors, algorithm):
    """The mean is that of the decoded updates; the whole run's bytes are those of what was sent."""
    runner, recorder = run(tiny_data, tmp_path, processors, **{'federated.algorithm': algorithm})
    federation, weights = runner.train_loop.federation, model_weights(runner)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    for (given, updates), line in zip(recorder.rounds, rounds_of(tmp_path), strict=True):
        assert line['bytes_up'] == sum(size for _, size in updates)
        for update, _ in updates:
            assert update.weights.keys() == given.keys() and not torch.equal(
                update.weights['decode_head.conv_seg.weight'], given['decode_head.conv_seg.weight'])
    if algorithm['type'] in ('FedAvg', 'FedBN') and processors[0]['type'] != 'GaussianMechanism':
        updates = [update for update, _ in recorder.rounds[-1][1]]
        total = sum(update.num_images for update in updates)
        for name, tensor in updates[0].weights.items():
            if tensor.is_floating_point():
                mean = sum(update.weights[name].double() * update.num_images for update in updates) / total
                torch.testing.assert_close(weights[name].double(), mean, rtol=1e-4, atol=1e-6)
    whole = sum(tensor.numel() * 4 for name, tensor in federation.algorithm.shared_weights.items())
    share = {'BFloat16Compression': 0.6, 'Int8Compression': 0.4, 'TopKCompression': 0.4}.get(processors[-1]['type'], 1)
    sent = recorder.rounds[0][1][0][1] - (whole if algorithm['type'] == 'SCAFFOLD' else 0)
    assert sent < share * whole * 1.01


def test_every_update_obeys_the_clip(tiny_data, tmp_path):
    runner, recorder = run(tiny_data, tmp_path, [dict(type='NormClipping', max_norm=0.05)])
    names = runner.train_loop.federation.algorithm.processed
    lengths = [sum((update.weights[name].double() - given[name].double()).square().sum() for name in names).sqrt()
               for given, updates in recorder.rounds for update, _ in updates]
    assert len(lengths) == 6 and all(length <= 0.05 * (1 + 1e-3) for length in lengths)
    assert [line['processors']['clipped_share'] for line in rounds_of(tmp_path)] == [1, 1]


def test_a_clip_that_never_clips_changes_little(tiny_data, tmp_path):
    clipped, _ = run(tiny_data, tmp_path / 'clipped', [dict(type='NormClipping', max_norm=1e6)])
    plain, _ = run(tiny_data, tmp_path / 'plain', [])
    for name, tensor in model_weights(plain).items():  # a sum of differences rounds elsewhere
        torch.testing.assert_close(model_weights(clipped)[name], tensor, rtol=1e-2, atol=1e-4)


def test_what_error_feedback_keeps_survives_an_interruption(tiny_data, tmp_path):
    changes = {'federated.clients_per_round': 3, 'train_cfg.max_rounds': 3,
               'federated.partitioner': dict(type='ClassPartitioner', num_clients=4)}
    processors = [dict(type='TopKCompression', ratio=0.05)]
    whole, _ = run(tiny_data, tmp_path / 'whole', processors, **changes)
    half = {**changes, 'train_cfg.max_rounds': 2}
    schedule = {'param_scheduler': tiny_config(tiny_data, tmp_path).param_scheduler}
    run(tiny_data, tmp_path / 'half', processors, **half, **schedule)
    resumed, _ = run(tiny_data, tmp_path / 'half', processors, **changes, resume=True)
    assert resumed.train_loop.started_at == 2
    assert_same_bits(model_weights(whole), model_weights(resumed))
    state = resumed.train_loop.federation.backend.store.load(resumed.train_loop.federation.cohort(2)[0])
    assert any(tensor.any() for tensor in state['processors'].values())


def test_the_table_names_every_processor():
    tested = {processor['type'] for mark in test_algorithms_run_with_any_processor.pytestmark
              for processors, _ in mark.args[1] for processor in processors}
    own = {name for name, kind in UPDATE_PROCESSORS.module_dict.items() if kind.__module__.startswith('fedseg_mm.')}
    # the last needs a model without batch normalisation, and has runs of its own
    assert tested == own - {'DifferentialPrivacy'}


def test_a_processor_of_ones_own(tiny_data, tmp_path):
    """In a file of its own, imported by the config and named in it: a quarter of the change is left."""
    (tmp_path / 'my_processor.py').write_text(OWN_PROCESSOR)
    changes = {'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9}
    config = write_config(tiny_data, tmp_path / 'run', **changes, **{
        'custom_imports.imports': ['fedseg_mm', 'my_processor'], 'federated.processors': [dict(type='Halved')]})
    done = run_tool('fed_train', config, cwd=tmp_path, PYTHONPATH='.')
    assert done.returncode == 0, done.stdout + done.stderr
    assert rounds_of(tmp_path / 'run')[0]['processors'] == dict(kept=0.25)
    plain, recorder = run(tiny_data, tmp_path / 'plain', [], **{**changes, 'federated.local_epochs': 2})
    given, own = recorder.rounds[0][0], weights_of(tmp_path / 'run' / 'round_1.pth')
    name = 'decode_head.conv_seg.weight'
    torch.testing.assert_close(own[name] - given[name], (model_weights(plain)[name] - given[name]) / 4, rtol=1e-3,
                               atol=1e-6)


@pytest.mark.parametrize('changes, sentence', [
    ({'federated.processors': dict(type='NormClipping', max_norm=1)}, 'federated.processors must be a list of dicts'),
    ({'federated.processors': [dict(type='NormClip', max_norm=1)]},
     'unknown type `NormClip` in federated.processors.0: did you mean `NormClipping`?'),
    ({'federated.processors': [dict(type='NormClipping')]}, 'federated.processors.0 needs `max_norm`'),
    ({'federated.processors': [dict(type='Int8Compression'), dict(type='NormClipping', max_norm=1)]},
     'Int8Compression encodes the update, so it must come last'),
    ({'federated.processors': [dict(type='GaussianMechanism', noise_multiplier=1.0, max_norm=1)]},
     'FedAvg weighs them by their images: set federated.algorithm.weighting=equal'),
    ({'federated.processors': [dict(type='Int8Compression')], 'federated.algorithm': dict(type='Centralised')},
     'Centralised is a bound without a federation, in which no updates are sent'),
    ({'federated.aggregator': dict(type='CoordinateMedian'), 'federated.algorithm': dict(type='LocalOnly')},
     'LocalOnly is a bound without a federation'),
    ({'federated.algorithm': dict(type='FedAvg', weighting='none')}, "weighting must be 'images' or 'equal'"),
    ({'federated.sampler': dict(type='PoissonSampler', probability=2)}, 'federated.sampler.probability must be'),
    ({'model.decode_head.loss_decode.balance_power': 3}, 'BackCELoss.balance_power must be a number at least 0'),
    ({'federated.backend': dict(type='Local')}, 'unknown type `Local` in federated.backend')])
def test_senseless_pairs_are_one_sentence_before_training(tiny_data, tmp_path, capsys, changes, sentence):
    assert sentence in refuse_quickly(capsys, write_config(tiny_data, tmp_path, **changes))


@pytest.mark.parametrize('aggregator, processors, algorithm, sampler', [
    (dict(type='CoordinateMedian'), [dict(type='NormClipping', max_norm=0.5), dict(type='Int8Compression')],
     dict(type='FedDyn', alpha=0.1), dict(type='AllClientsSampler')),
    (dict(type='MultiKrum', num_malicious=1), [dict(type='TopKCompression', ratio=0.2)], dict(type='SCAFFOLD'),
     dict(type='UniformSampler')),
    (dict(type='TrimmedMean', trim=0.2), [dict(type='GaussianMechanism', noise_multiplier=0.01, max_norm=0.5)],
     dict(type='FedSeg', start_round=0, weighting='equal'), dict(type='ClassBalancedSampler')),
    (dict(type='GeometricMedian'), [dict(type='BFloat16Compression')], dict(type='FedAdam', batch_norm='recalibrate'),
     dict(type='WeightedSampler')),
    (dict(type='NormClippedMean', max_norm=0.1), [dict(type='NormClipping', max_norm=0.05)],
     dict(type='MOON', batch_norm='local'), dict(type='UniformSampler'))])
def test_all_parts_together(tiny_data, tmp_path, aggregator, processors, algorithm, sampler):
    """Two rounds in which nothing is the default."""
    runner, recorder = run(tiny_data, tmp_path, processors, **{
        'federated.algorithm': algorithm, 'federated.aggregator': aggregator, 'federated.sampler': sampler,
        'federated.clients_per_round': 5})
    federation, weights = runner.train_loop.federation, model_weights(runner)
    assert type(federation.algorithm.aggregator).__name__ == aggregator['type']
    assert all(tensor.isfinite().all() for tensor in weights.values())
    size = 8 if sampler['type'] == 'AllClientsSampler' else 5
    assert [len(updates) for _, updates in recorder.rounds] == [size, size]
    given = recorder.rounds[-1][0]
    assert not torch.equal(weights['decode_head.conv_seg.weight'], given['decode_head.conv_seg.weight'])
    assert_same_bits(weights_of(tmp_path / 'round_2.pth'), weights)


def test_the_noise_of_a_round_is_in_its_own_log(tiny_data, tmp_path):
    """Two rounds, two entries: 1 * 0.5 over three clients."""
    train(tiny_config(tiny_data, tmp_path, **{
        'federated.algorithm': dict(type='FedAvg', weighting='equal'), 'train_cfg.max_rounds': 2,
        'train_cfg.val_interval': 9, 'federated.local_epochs': 1,
        'federated.processors': [dict(type='GaussianMechanism', noise_multiplier=1.0, max_norm=0.5)]}))
    path = next(tmp_path.glob('*/vis_data/rounds.json'))
    lines = [json.loads(line)['processors'] for line in path.read_text().splitlines()]
    assert [line['noise_std'] for line in lines] == [pytest.approx(0.5 / 3)] * 2
    assert all('update_norm' in line for line in lines)
