import json
import re

import numpy as np
import pytest
import torch

from fedseg_mm import FedSegError
from fedseg_mm.datasets import ClientShard
from fedseg_mm.registry import CLIENT_SAMPLERS
from fedseg_mm.samplers import (
    AllClientsSampler,
    ClassBalancedSampler,
    PoissonSampler,
    UniformSampler,
    WeightedSampler,
)
from tests.conftest import assert_same_bits, run_tool, tiny_config, weights_of, write_config
from tests.test_engine.test_federated_loop import train


def made(sampler, num_clients, clients_per_round, num_images=None, classes=None):
    """Clients hold one image each and annotate a class of eleven, unless said otherwise."""
    num_images, classes = num_images or [1] * num_clients, classes or [(k % 11, ) for k in range(num_clients)]
    sampler.setup([ClientShard(tuple(range(number)), own) for number, own in zip(num_images, classes)],
                  clients_per_round)
    return sampler


def drawn(sampler, rounds=4000):
    """How often each client is drawn, and the sizes of the cohorts."""
    cohorts = [sampler.cohort(0, round) for round in range(rounds)]
    return np.bincount(np.concatenate(cohorts).astype(int), minlength=sampler.num_clients), list(map(len, cohorts))


SAMPLERS = [UniformSampler, WeightedSampler, PoissonSampler, AllClientsSampler, ClassBalancedSampler]


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_without_replacement_and_within_the_federation(sampler):
    for round in range(50):
        cohort = made(sampler(), 22, 5).cohort(0, round)
        assert len(set(cohort)) == len(cohort) and set(cohort) <= set(range(22))
        assert sampler is PoissonSampler or len(cohort) == (22 if sampler is AllClientsSampler else 5)
    assert sorted(made(sampler(), 5, 5).cohort(0, 0)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_follows_from_seed_and_round_alone(sampler):
    cohorts = [made(sampler(), 22, 5).cohort(1, round) for round in range(4)]
    np.random.seed(3)
    assert [made(sampler(), 22, 5).cohort(1, round) for round in reversed(range(4))] == cohorts[::-1]
    others = [made(sampler(), 22, 5).cohort(2, round) for round in range(4)]
    assert (cohorts == others) == (sampler is AllClientsSampler)


def test_uniform():
    counts, _ = drawn(made(UniformSampler(), 10, 3))
    assert abs(counts - 1200).max() < 5 * np.sqrt(4000 * 0.3 * 0.7)


def test_weights_by_hand():
    """One of three, with the weights 1, 0 and 3."""
    counts, _ = drawn(made(WeightedSampler([1, 0, 3.0]), 3, 1))
    assert counts[1] == 0 and abs(counts[0] - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75)


def test_weights_are_the_images_unless_named():
    counts, _ = drawn(made(WeightedSampler(), 3, 1, [30, 10, 0]))
    assert counts[2] == 0 and abs(counts[0] - 3000) < 5 * np.sqrt(4000 * 0.25 * 0.75)


@pytest.mark.parametrize('probability, expected', [(None, 0.3), (0.05, 0.05)])
def test_poisson_cohorts_are_of_any_size_and_clients_independent(probability, expected):
    sampler = made(PoissonSampler(probability), 10, 3)
    counts, sizes = drawn(sampler)
    assert abs(counts - 4000 * expected).max() < 5 * np.sqrt(4000 * expected * (1 - expected))
    assert np.var(sizes) == pytest.approx(10 * expected * (1 - expected), rel=0.15)  # binomial
    assert (0 in sizes) and len(set(sizes)) > 3


def test_classes_take_turns():
    """Eleven classes, two clients each, five per round: in 11 rounds every class has five turns."""
    sampler = made(ClassBalancedSampler(), 22, 5)
    cohorts = [sampler.cohort(3, round) for round in range(22)]
    classes = [[client % 11 for client in cohort] for cohort in cohorts]
    assert np.bincount(sum(classes[:11], [])).tolist() == [5] * 11 == np.bincount(sum(classes[11:], [])).tolist()
    for rounds in range(1, 23):  # at any time, no class is more than one turn ahead
        assert np.ptp(np.bincount(sum(classes[:rounds], []), minlength=11)) <= 1
    assert set(sum(cohorts, [])) == set(range(22))
    uniform = made(UniformSampler(), 22, 5)
    assert len(set(np.bincount(sum(([c % 11 for c in uniform.cohort(3, r)] for r in range(11)), []), minlength=11))) > 2


def test_a_class_whose_clients_are_all_there_gives_its_turn_away():
    cohort = made(ClassBalancedSampler(), 3, 3, classes=[(0, ), (1, ), (1, )]).cohort(0, 0)
    assert sorted(cohort) == [0, 1, 2]


@pytest.mark.parametrize('size', [0, 23])
def test_impossible_cohorts_are_refused(size):
    with pytest.raises(FedSegError, match='between 1 and 22, the number of clients of the federation'):
        made(UniformSampler(), 22, size)


@pytest.mark.parametrize('make, sentence', [
    (lambda: WeightedSampler('pixels'), "federated.sampler.weights must be 'images' or a list of numbers"),
    (lambda: WeightedSampler([1, -1]), 'federated.sampler.weights must be'),
    (lambda: made(WeightedSampler([1, 2]), 3, 1), 'has 2 numbers, but there are 3 clients'),
    (lambda: made(WeightedSampler([1, 0, 0]), 3, 2), 'only 1 of the weights in federated.sampler.weights are above 0'),
    (lambda: PoissonSampler(0), 'federated.sampler.probability must be a number above 0 and at most 1')])
def test_what_cannot_be_drawn_is_refused(make, sentence):
    with pytest.raises(FedSegError, match=sentence):
        make()


# --- whole runs -------------------------------------------------------------
OWN_PARTS = '''\
"""A sampler and a backend of the user's own."""
from fedseg_mm.engine import LocalBackend
from fedseg_mm.registry import BACKENDS, CLIENT_SAMPLERS
from fedseg_mm.samplers import ClientSampler


@CLIENT_SAMPLERS.register_module()
class EverySecondRound(ClientSampler):

    def __init__(self, first):
        self.first = first

    def cohort(self, seed, round):
        return [] if round % 2 else [self.first, self.first + 1]


@BACKENDS.register_module()
class Announcing(LocalBackend):

    def train(self, cohort, broadcast):
        print('the cohort is', cohort)
        return super().train(cohort, broadcast)
'''


def test_a_sampler_and_a_backend_of_ones_own_and_rounds_without_clients(tiny_data, tmp_path):
    """In a file of their own, named in the config; a round without clients leaves the global model as it is."""
    (tmp_path / 'my_parts.py').write_text(OWN_PARTS)
    config = write_config(tiny_data, tmp_path / 'run', **{
        'custom_imports.imports': ['fedseg_mm', 'my_parts'],
        'federated.sampler': dict(type='EverySecondRound', first=2), 'federated.backend': dict(type='Announcing')})
    done = run_tool('fed_train', config, cwd=tmp_path, PYTHONPATH='.')
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r'the cohort is (.*)', done.stdout) == ['[2, 3]', '[]', '[2, 3]']
    path, = (tmp_path / 'run').glob('*/vis_data/rounds.json')
    rounds = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line['cohort'] for line in rounds] == [[2, 3], [], [2, 3]]
    assert [line['images'] for line in rounds] == [6, 0, 6] and rounds[1]['bytes_up'] == 0
    first, second, third = (weights_of(tmp_path / 'run' / f'round_{number}.pth') for number in (1, 2, 3))
    assert_same_bits(first, second)
    assert any(not torch.equal(second[name], third[name]) for name in second)


@pytest.mark.parametrize('sampler', [dict(type='WeightedSampler'), dict(type='PoissonSampler'),
                                     dict(type='AllClientsSampler'), dict(type='ClassBalancedSampler')])
def test_cohorts_of_a_run(tiny_data, tmp_path, sampler):
    runner = train(tiny_config(tiny_data, tmp_path, **{
        'federated.sampler': sampler, 'federated.local_epochs': 1, 'train_cfg.max_rounds': 2,
        'train_cfg.val_interval': 9}))
    path, = tmp_path.glob('*/vis_data/rounds.json')
    cohorts = [json.loads(line)['cohort'] for line in path.read_text().splitlines()]
    expected = CLIENT_SAMPLERS.build(sampler)
    expected.setup(runner.train_loop.federation.partition.clients, 3)
    assert cohorts == [expected.cohort(5, round) for round in range(2)]
    assert runner.train_loop.federation.cohort(1) == cohorts[1]
