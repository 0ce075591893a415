"""Client-level differential privacy: the account, the clip, the noise, and whole runs."""
import json
import math

import dp_accounting
import pytest
import torch
from dp_accounting import rdp
from mmengine.hooks import Hook

from fedseg_mm.errors import FedSegError
from fedseg_mm.privacy import PrivacyAccountant, Sampling, secure_normal
from fedseg_mm.processors import DifferentialPrivacy
from fedseg_mm.structures import ClientUpdate
from tests.conftest import assert_same_bits, run_processes, run_tool, tiny_config, weights_of, write_config
from tests.test_cli.test_train_errors import refuse_quickly
from tests.test_engine.test_federated_loop import model_weights, train
from tests.test_processors.updates import SHAPES, clone, context, equal, flat, update

POISSON, FIXED = Sampling('poisson', 100, 10.0), Sampling('fixed', 100, 10)
GN = dict(type='GN', num_groups=1)
#: Makes the tiny config private: no batch normalisation, equal weights.
PRIVATE = {
    'model.backbone.norm_cfg': GN, 'model.decode_head.norm_cfg': GN, 'federated.local_epochs': 1,
    'federated.algorithm': dict(type='FedAvg', weighting='equal'), 'federated.sampler': dict(type='PoissonSampler'),
    'train_cfg.val_interval': 3}


def mechanism(sampling=FIXED, names=tuple(SHAPES), **arguments):
    made = DifferentialPrivacy(**{'delta': 1e-3, 'max_norm': 4.0, 'noise_multiplier': 1.0, 'reproducible': True,
                                  **arguments})
    made.setup(3)
    made.sampling, made.trained_names = sampling, lambda: list(names)
    return made


def processor(**arguments):
    return {'federated.processors': [dict(type='DifferentialPrivacy', **{
        'delta': 0.01, 'max_norm': 0.05, 'noise_multiplier': 1.0, **arguments})]}


def rounds_of(folder):
    return [json.loads(line) for path in sorted(folder.glob('*/vis_data/rounds.json'))
            for line in path.read_text().splitlines()]


@pytest.mark.parametrize('sampling, relation, event', [
    (POISSON, 'ADD_OR_REMOVE_ONE', lambda z: dp_accounting.PoissonSampledDpEvent(
        0.1, dp_accounting.GaussianDpEvent(z))),
    (FIXED, 'REPLACE_ONE', lambda z: dp_accounting.SampledWithoutReplacementDpEvent(
        100, 10, dp_accounting.GaussianDpEvent(z / 2)))])
def test_epsilon_is_that_of_dp_accounting(sampling, relation, event):
    ours, theirs = PrivacyAccountant(1e-3), rdp.RdpAccountant(
        neighboring_relation=getattr(dp_accounting.NeighboringRelation, relation))
    assert ours.epsilon(sampling, 2.0) == 0
    for _ in range(3):
        ours.add(sampling, 2.0)
    ours.add(sampling, 3.0, 4)
    theirs.compose(dp_accounting.SelfComposedDpEvent(event(2.0), 3)).compose(
        dp_accounting.SelfComposedDpEvent(event(3.0), 4))
    assert ours.epsilon(sampling, 2.0) == pytest.approx(theirs.get_epsilon(1e-3), rel=1e-12)
    assert ours.rounds == [(sampling.kind, 100, 10, 2.0, 3), (sampling.kind, 100, 10, 3.0, 4)]
    assert ours.epsilon(sampling, 0.0, 1) == math.inf


@pytest.mark.parametrize('sampling', [POISSON, pytest.param(FIXED, marks=pytest.mark.slow)])
def test_the_noise_found_keeps_the_target_and_hardly_less_would(sampling):
    accountant = PrivacyAccountant(1e-3)
    noise = accountant.noise_for(sampling, 3.0, 20)
    assert 2.98 < accountant.epsilon(sampling, noise, 20) <= 3.0 < accountant.epsilon(sampling, noise * 0.99, 20)


def test_kinds_of_cohorts_do_not_add_up():
    accountant = PrivacyAccountant(1e-3)
    accountant.add(POISSON, 1.0)
    with pytest.raises(FedSegError, match='the rounds before had poisson cohorts and these are fixed'):
        accountant.epsilon(FIXED, 1.0)


def test_every_update_obeys_the_clip():
    """At the client, and at a server that a client sends more to; nothing but trained tensors changes."""
    for dtype in (torch.float32, torch.float16):
        for length in (1e-3, 1.0, 1e3):
            for delta in (mechanism().at_client(update(length=length, dtype=dtype), context()),
                          mechanism().at_receipt(update(length=length, dtype=dtype), {})):
                assert (flat(delta) ** 2).sum() ** 0.5 <= 4.0 * (1 if dtype == torch.float32 else 1.001)
    short = update(length=0.01)
    assert equal(mechanism().at_client(clone(short), context()), short)
    kept = mechanism().at_client(update(), context(trained=['head.bias']))
    assert [name for name, tensor in kept.items() if tensor.any()] == ['head.bias']
    with pytest.raises(ValueError, match='NaN or infinite'):
        mechanism().at_receipt(dict(a=torch.tensor([math.nan])), {})
    with pytest.raises(FedSegError, match='that of client 0 has 2'):
        mechanism().at_client(update(), context(weight=2.0))


def test_the_noise_is_on_a_mean_over_a_fixed_number():
    """Three of ten came: their mean counts 3/10; noise 1 * 4 / 10 on what is trained only."""
    change = dict(a=torch.ones(200_000), buffer=torch.ones(3))
    done = mechanism(names=['a']).at_server(change, 3.0, 0)
    assert not done['buffer'].any()
    noise = (done['a'].double() - 0.3) / 0.4
    n = len(noise)
    assert abs(noise.mean()) < 5 / n ** 0.5 and abs((noise ** 2).mean() - 1) < 5 * (2 / n) ** 0.5
    first, again, other = (mechanism(names=['a']).at_server(dict(a=torch.zeros(5)), 0.0, round)['a']
                           for round in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(again, other)


def test_secure_noise_is_normal_and_never_the_same():
    noise = secure_normal(1_200_001).double()
    n = len(noise)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((noise ** power).mean() - moment) < 5 * (variance / n) ** 0.5
    assert abs((noise[:-1] * noise[1:]).mean()) < 5 / n ** 0.5
    torch.manual_seed(0)
    first = secure_normal(5)
    torch.manual_seed(0)
    assert not torch.equal(first, secure_normal(5)) and len(secure_normal(0)) == 0


def test_the_clip_follows_the_quantile():
    """Andrew et al., algorithm 1, by hand, and where it settles without noise: lengths 1 to 10, their median."""
    used = mechanism(target_quantile=0.5, noise_multiplier=0.0, max_norm=8.0, names=['a'])
    lengths = [float(length) for length in range(1, 11)]

    def one_round():
        for length in lengths:
            sent = used.at_client(dict(a=torch.tensor([length])), context(trained=['a']))
            used.at_receipt(sent, {})
        used._update_noise()
        used.at_server(dict(a=torch.zeros(1)), 10.0, 0)

    one_round()
    assert used.max_norm == pytest.approx(8 * math.exp(-0.2 * (0.8 - 0.5)))
    for _ in range(60):
        one_round()
    assert 4.5 < used.max_norm < 6.5
    noisy = mechanism(target_quantile=0.5, count_noise=2.0)  # 1 = 1 / z^2 + 1 / (2 * 2)^2
    assert noisy._update_noise() == pytest.approx((1 - 1 / 16) ** -0.5)
    with pytest.raises(FedSegError, match='count_noise must be above half the noise multiplier, 0.5'):
        mechanism(target_quantile=0.5, count_noise=0.4)._update_noise()
    with pytest.raises(ValueError, match='within_clip'):
        noisy.at_receipt(update(), {})


@pytest.mark.parametrize('arguments, key', [
    (dict(delta=0), 'delta'), (dict(delta=1), 'delta'), (dict(max_norm=0), 'max_norm'),
    (dict(noise_multiplier=-1), 'noise_multiplier'), (dict(target_epsilon=0), 'target_epsilon'),
    (dict(target_quantile=1), 'target_quantile'), (dict(count_noise=0), 'count_noise'),
    (dict(clip_learning_rate=0), 'clip_learning_rate'), (dict(reproducible=1), 'reproducible')])
def test_wrong_arguments(arguments, key):
    with pytest.raises(FedSegError, match=rf'federated\.processors\.DifferentialPrivacy\.{key} must be'):
        mechanism(**arguments)


@pytest.mark.parametrize('changes, sentence', [
    ({'federated.algorithm': dict(type='FedAvg')}, 'set federated.algorithm.weighting=equal'),
    ({'federated.algorithm': dict(type='SCAFFOLD')}, 'SCAFFOLD sends a second quantity beside the weights'),
    ({'federated.algorithm.batch_norm': 'recalibrate'}, "leave batch_norm at 'average'"),
    ({'federated.algorithm.batch_norm': 'local_statistics'}, "leave batch_norm at 'average'"),
    ({'model.decode_head.norm_cfg': dict(type='BN')}, "gathers statistics of the clients' images"),
    ({'federated.sampler': dict(type='WeightedSampler')}, 'the cohorts of WeightedSampler have no accounting'),
    ({'federated.aggregator': dict(type='CoordinateMedian')}, 'but not in CoordinateMedian'),
    ({'federated.processors': [dict(type='NormClipping', max_norm=1), *processor()['federated.processors']]},
     'use it alone'),
    (processor(noise_multiplier=None), 'needs noise_multiplier, or target_epsilon'),
    (processor(target_epsilon=0.01), 'not even one round can be trained')])
def test_what_breaks_the_guarantee_is_one_sentence(tiny_data, tmp_path, capsys, changes, sentence):
    config = write_config(tiny_data, tmp_path, **{**PRIVATE, **processor(), **changes})
    assert sentence in refuse_quickly(capsys, config)


class Sent(Hook):
    """The lengths of all updates, as they travel."""

    def __init__(self):
        self.lengths = []

    def after_client(self, runner, update):
        payload = ClientUpdate.from_bytes(update.to_bytes()).payload
        self.lengths.append(math.sqrt(sum(float((tensor.double() ** 2).sum()) for tensor in payload.values())))


def test_a_run_stops_at_its_target(tiny_data, tmp_path, capsys):
    """Epsilon in every line of rounds.json, on the console and in the checkpoint; nothing about a client."""
    sampling = Sampling('poisson', 8, 3.0)
    target = (PrivacyAccountant(0.01).epsilon(sampling, 1.0, 2) + PrivacyAccountant(0.01).epsilon(sampling, 1.0, 3)) / 2
    sent = Sent()
    runner = train(tiny_config(tiny_data, tmp_path, **{
        **PRIVATE, **processor(target_epsilon=target), 'train_cfg.max_rounds': 6}), sent)
    assert runner.epoch == 2 and (tmp_path / 'round_2.pth').exists()
    assert sent.lengths == [] or max(sent.lengths) <= 0.05
    lines = rounds_of(tmp_path)
    expected = [PrivacyAccountant(0.01).epsilon(sampling, 1.0, rounds) for rounds in (1, 2)]
    assert [line['privacy']['epsilon'] for line in lines] == pytest.approx(expected)
    assert all(line['clients'] == line['cohort'] == [] for line in lines)
    said = next(tmp_path.glob('*/*.log')).read_text()
    assert f'epsilon {expected[1]:.4g} at delta 0.01 (add or remove one client)' in said
    assert 'Training ends after round 2: the next round would raise epsilon' in said
    assert 'loss:' not in said and 'clients (loss, time)' not in said
    kept = torch.load(tmp_path / 'round_2.pth', weights_only=True)['federated']['processors']
    assert kept['0.DifferentialPrivacy/epsilon'] == pytest.approx(expected[1])


def test_the_account_survives_an_interruption(tiny_data, tmp_path):
    """Reproducible, with an adaptive clip and noise found for a target: equal bits, and equal accounts."""
    changes = {**PRIVATE, **processor(noise_multiplier=None, target_epsilon=4.0, target_quantile=0.5,
                                      reproducible=True)}
    whole = train(tiny_config(tiny_data, tmp_path / 'whole', **changes))

    class Interrupt(Hook):
        def before_round(self, runner, cohort, broadcast):
            if runner.epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(BaseException):  # noqa: B017  whatever the loop makes of it
        train(tiny_config(tiny_data, tmp_path / 'cut', **changes), Interrupt())
    again = train(tiny_config(tiny_data, tmp_path / 'cut', resume=True, **changes))
    assert_same_bits(model_weights(whole), model_weights(again))
    assert [line['privacy'] for line in rounds_of(tmp_path / 'cut')] == [
        line['privacy'] for line in rounds_of(tmp_path / 'whole')]
    spent = whole.train_loop.federation.processors.privacy.spent
    assert 3.95 < spent.epsilon <= 4.0 and spent.adjacency == 'add or remove one client'
    assert 'NO privacy guarantee' in next((tmp_path / 'whole').glob('*/*.log')).read_text()


def test_secret_noise_and_cohorts_and_a_round_without_clients(tiny_data, tmp_path):
    """With almost no participation, the model still moves by noise; two runs differ; integers and buffers stay."""
    changes = {**PRIVATE, **processor(), 'federated.sampler': dict(type='PoissonSampler', probability=1e-6),
               'train_cfg.max_rounds': 1}
    first, second = (train(tiny_config(tiny_data, tmp_path / name, **changes)) for name in 'ab')
    one, two = model_weights(first), model_weights(second)
    assert len(first.train_loop.round_log.clients) == 0
    assert not torch.equal(one['decode_head.conv_seg.weight'], two['decode_head.conv_seg.weight'])
    assert first.train_loop.federation._cohort_seed != second.train_loop.federation._cohort_seed
    assert weights_of(tmp_path / 'a' / 'round_1.pth').keys() == one.keys()


@pytest.mark.slow
def test_two_processes_equal_one(tiny_data, tmp_path):
    """Up to summation order, with an adaptive clip, whose bits are summed over the processes; secret noise runs too."""
    configs = {name: write_config(tiny_data, tmp_path / name, **{
        **PRIVATE, **processor(target_quantile=0.5, max_norm=0.5, reproducible=name != 'secret'),
        'train_cfg.max_rounds': 2}) for name in ('one', 'two', 'secret')}
    assert run_tool('fed_train', configs['one']).returncode == 0
    for name in ('two', 'secret'):
        done = run_processes(2, 'fed_train', configs[name])
        assert done.returncode == 0, done.stdout + done.stderr
    for one, two in zip(rounds_of(tmp_path / 'one'), rounds_of(tmp_path / 'two')):
        assert two['privacy'] == pytest.approx(one['privacy'])
    first, second, other = (weights_of(tmp_path / name / 'round_2.pth') for name in configs)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(other['decode_head.conv_seg.weight'], first['decode_head.conv_seg.weight'], atol=1e-3)


def test_fedseg_with_a_norm_layer_that_gathers_nothing(tiny_data, tmp_path):
    algorithm = dict(type='FedSeg', weighting='equal', start_round=0, threshold=0.0)
    changes = {**PRIVATE, **processor(), 'train_cfg.max_rounds': 2}
    with pytest.raises(FedSegError, match='projection_head.layers.1 gathers statistics'):
        train(tiny_config(tiny_data, tmp_path / 'bn', **{**changes, 'federated.algorithm': algorithm}))
    with pytest.raises(FedSegError, match='cannot make a norm layer for 8 channels: num_channels .8. must be'):
        train(tiny_config(tiny_data, tmp_path / 'bad', **{**changes, 'federated.algorithm': dict(
            **algorithm, projection_norm_cfg=dict(type='GN', num_groups=3))}))
    runner = train(tiny_config(tiny_data, tmp_path / 'gn', **{**changes, 'federated.algorithm': dict(
        **algorithm, projection_norm_cfg=dict(type='GN', num_groups=2))}))
    assert rounds_of(tmp_path / 'gn')[-1]['privacy']['epsilon'] > 0
    assert type(runner.model.projection_head.layers[1]).__name__ == 'GroupNorm'


def test_a_private_round_without_a_finite_update_says_so(tiny_data, tmp_path, capsys):
    """Of such rates, no weight is finite; nobody is named."""
    path = write_config(tiny_data, tmp_path, **{
        **PRIVATE, **processor(reproducible=True), 'train_cfg.max_rounds': 1, 'optim_wrapper.optimizer.lr': 1e30,
        'optim_wrapper.optimizer.weight_decay': 1e38,
        'federated.sampler': dict(type='AllClientsSampler'), 'federated.clients_per_round': 8})
    done = run_tool('fed_train', path)
    assert done.returncode == 0, done.stderr
    said = 'Round 1: no update of the cohort was finite, so the global model has taken only noise; '
    assert (done.stdout + done.stderr).count(said) == 1
    assert rounds_of(tmp_path)[0]['clients'] == []
