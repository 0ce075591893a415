"""Whole rounds with every aggregator, named in a config."""
import pytest
import torch
from mmengine.hooks import Hook

from fedseg_mm import FedSegError
from fedseg_mm.registry import AGGREGATORS
from tests.conftest import assert_same_bits, run_processes, run_tool, tiny_config, weights_of, write_config
from tests.test_cli.test_train_errors import refuse_quickly
from tests.test_engine.test_federated_loop import model_weights, train

CLASSIFIER = 'decode_head.conv_seg.weight'
OWN_AGGREGATOR = '''\
"""An aggregator of the user's own, on the interface alone."""
from fedseg_mm.aggregators import Aggregator
from fedseg_mm.registry import AGGREGATORS


@AGGREGATORS.register_module()
class MostImages(Aggregator):
    """The update of the client with the most images."""

    def __init__(self, announce=''):
        super().__init__()
        self.announce, self.best, self.kept = announce, 0, {}

    def add(self, tensors, weight):
        self.check_weight(weight)
        self.total += weight
        if weight > self.best:
            self.best, self.kept = weight, {name: tensor.clone() for name, tensor in tensors.items()}

    def all_reduce(self, like):
        pass

    def result(self, reuse=None):
        print(self.announce, self.best)
        kept, self.best, self.kept, self.total = self.kept, 0, {}, 0.0
        return kept
'''


class Recorder(Hook):
    """Keeps what the clients of the last round were given and sent."""

    def before_round(self, runner, cohort, broadcast):
        self.given = {name: tensor.clone() for name, tensor in broadcast.weights.items()}
        self.updates = []

    def after_client(self, runner, update):
        self.updates.append(({name: tensor.clone() for name, tensor in update.weights.items()}, update.num_images))


def algorithm_of(runner):
    return runner.train_loop.federation.algorithm


def run(data, work_dir, aggregator, algorithm):
    recorder = Recorder()
    runner = train(tiny_config(data, work_dir, **{
        'federated.aggregator': aggregator, 'federated.algorithm': algorithm, 'federated.clients_per_round': 5,
        'federated.local_epochs': 1, 'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 2}), recorder)
    assert type(algorithm_of(runner).aggregator).__name__ == aggregator['type']
    assert len(recorder.updates) == 5
    return runner, recorder


@pytest.mark.parametrize('aggregator', [
    dict(type='CoordinateMedian'), dict(type='TrimmedMean', trim=0.2), dict(type='NormClippedMean', max_norm=0.02),
    dict(type='GeometricMedian'), dict(type='Krum', num_malicious=1),
    dict(type='MultiKrum', num_malicious=1, num_selected=3)])
def test_fedavg_takes_what_the_aggregator_makes(tiny_data, tmp_path, aggregator):
    """The global model is the aggregator's result for what the clients sent, from what they were given."""
    runner, recorder = run(tiny_data, tmp_path, aggregator, dict(type='FedAvg'))
    results = []
    for config in (aggregator, dict(type='WeightedMean')):
        expected = AGGREGATORS.build(config)
        expected.begin(recorder.given, [name for name, _ in runner.model.named_parameters()])
        for weights, num_images in recorder.updates:
            expected.add(weights, num_images)
        results.append(expected.result())
    assert_same_bits(results[0], model_weights(runner))
    assert not torch.allclose(*(result[CLASSIFIER] for result in results))


@pytest.mark.parametrize('aggregator, algorithm', [
    (dict(type='CoordinateMedian'), dict(type='SCAFFOLD')),
    (dict(type='Krum', num_malicious=1), dict(type='SCAFFOLD', server_lr=0.5))])
def test_a_second_quantity_has_an_aggregator_of_its_own(tiny_data, tmp_path, aggregator, algorithm):
    runner, _ = run(tiny_data, tmp_path, aggregator, algorithm)
    assert_same_bits(weights_of(tmp_path / 'round_2.pth'), model_weights(runner))
    change, control = algorithm_of(runner).change, algorithm_of(runner).control
    assert type(change).__name__ == aggregator['type'] and change is not algorithm_of(runner).aggregator
    assert all(tensor.isfinite().all() for tensor in control.values()) and control[CLASSIFIER].any()


@pytest.mark.parametrize('aggregator, sentence', [
    (dict(type='Krumm', num_malicious=1), 'unknown type `Krumm` in federated.aggregator: did you mean `Krum`?'),
    (dict(type='Krum'), 'federated.aggregator needs `num_malicious`, which is not given'),
    (dict(type='Krum', num_selected=2, num_malicious=0), 'unknown key `num_selected` in federated.aggregator'),
    (dict(type='Krum', num_malicious=1), '= 5 updates in a round, but there are 3: raise federated.clients_per_round'),
    (dict(type='MultiKrum', num_malicious=0, num_selected=4), 'num_selected is 4, but a round has 3 updates'),
    (dict(type='TrimmedMean', trim=0.5), 'federated.aggregator.trim must be a number at least 0 and below 0.5'),
    (dict(type='NormClippedMean'), 'federated.aggregator needs `max_norm`, which is not given'),
    (dict(type='CoordinateMedian', trim=0.1), 'unknown key `trim` in federated.aggregator')])
def test_mistakes_are_one_sentence_before_training(tiny_data, tmp_path, capsys, aggregator, sentence):
    assert sentence in refuse_quickly(capsys, write_config(tiny_data, tmp_path, **{'federated.aggregator': aggregator}))


def test_a_round_with_fewer_updates_than_it_needs_leaves_the_model_as_it_was(tiny_data, tmp_path):
    changes = {'federated.aggregator': dict(type='Krum', num_malicious=1), 'federated.clients_per_round': 5,
               'federated.sampler': dict(type='PoissonSampler', probability=0.55), 'federated.local_epochs': 1,
               'train_cfg.max_rounds': 4, 'train_cfg.val_interval': 9}
    runner = train(tiny_config(tiny_data, tmp_path, **changes, **{'federated.max_failed_rounds': 4}))
    sizes = [len(runner.train_loop.federation.cohort(round)) for round in range(4)]
    weights = [weights_of(tmp_path / f'round_{rounds}.pth')[CLASSIFIER] for rounds in (1, 2, 3, 4)]
    stayed = [torch.equal(*pair) for pair in zip(weights, weights[1:])]
    assert stayed == [size < 5 for size in sizes[1:]] and set(stayed) == {True, False}, sizes
    with pytest.raises(FedSegError, match='Krum needs 5; raise federated.clients_per_round, or .*; --resume goes on'):
        train(tiny_config(tiny_data, tmp_path / 'other', **changes))


def test_two_processes_equal_one_bit_for_bit(tiny_data, tmp_path):
    """The median of the same updates is the same, whoever trained them; three clients for two processes."""
    changes = {'federated.aggregator': dict(type='CoordinateMedian'), 'train_cfg.max_rounds': 2,
               'train_cfg.val_interval': 9}
    done = run_processes(2, 'fed_train', write_config(tiny_data, tmp_path, **changes))
    assert done.returncode == 0, done.stdout + done.stderr
    one = train(tiny_config(tiny_data, tmp_path / 'one', **changes))
    assert_same_bits(weights_of(tmp_path / 'round_2.pth'), model_weights(one))


def test_an_aggregator_of_ones_own(tiny_data, tmp_path):
    """In a file of its own, imported by the config and named in it."""
    (tmp_path / 'my_aggregator.py').write_text(OWN_AGGREGATOR)
    config = write_config(tiny_data, tmp_path / 'run', **{
        'custom_imports.imports': ['fedseg_mm', 'my_aggregator'], 'train_cfg.max_rounds': 1,
        'federated.aggregator': dict(type='MostImages', announce='the most images are')})
    done = run_tool('fed_train', config, cwd=tmp_path, PYTHONPATH='.')
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'the most images are 3' in done.stdout
    mean = train(tiny_config(tiny_data, tmp_path / 'mean', **{'train_cfg.max_rounds': 1}))
    own, mean = weights_of(tmp_path / 'run' / 'round_1.pth'), model_weights(mean)
    assert own.keys() == mean.keys() and not torch.equal(own[CLASSIFIER], mean[CLASSIFIER])
