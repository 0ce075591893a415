"""What hostile clients send, against numbers computed by hand, and whole runs with them."""
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from fedseg_mm import FedSegError
from fedseg_mm.attacks import (
    ALIE,
    GaussianNoise,
    HonestUpdates,
    HostileClients,
    InnerProductManipulation,
    LabelFlip,
    Scaling,
    SignFlip,
)
from fedseg_mm.datasets.transforms import MaskToClient
from tests.conftest import (
    assert_same_bits,
    run_processes,
    run_tool,
    tiny_config,
    weights_of,
    write_config,
)
from tests.test_aggregators.test_aggregators_and_algorithms import Recorder
from tests.test_engine.test_federated_loop import Interrupt, model_weights, train

EVERYONE = dict(type='AllClientsSampler')


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_signs_lengths_and_noise():
    def change():
        return {'a': torch.tensor([3.0, -4.0]), 'b': torch.zeros(998)}

    assert SignFlip(share=.1, scale=2.).alter(change(), generator())['a'].tolist() == [-6, 8]
    assert Scaling(share=.1, scale=3).alter(change(), generator())['a'].tolist() == [9, -12]
    noise = torch.cat(list(GaussianNoise(share=.1, ratio=2.).alter(change(), generator()).values()))
    assert noise.norm() == pytest.approx(math.hypot(2 * 5, 5), rel=0.05)  # the noise is at right angles to the change
    again = torch.cat(list(GaussianNoise(share=.1, ratio=2.).alter(change(), generator()).values()))
    assert torch.equal(noise, again)


def test_alie_is_the_mean_less_z_deviations():
    honest = HonestUpdates(8, 2, {'a': torch.tensor([1.0, 2.0])}, {'a': torch.tensor([0.5, 0.0])})
    assert ALIE(share=.2, z=1.5).craft(honest)['a'].tolist() == [0.25, 2.0]
    # n = 50, m = 12: s = 26 - 12 = 14, and z has (38 - 14) / 38 of the normal distribution below it
    many = HonestUpdates(38, 12)
    assert ALIE(share=.2).deviations(many) == pytest.approx(NormalDist().inv_cdf(24 / 38))
    assert ALIE(share=.2).deviations(HonestUpdates(9, 1)) == 0  # by the equation it would be below


def test_inner_products_are_turned():
    honest = HonestUpdates(8, 2, {'a': torch.tensor([1.0, 2.0])}, {'a': torch.ones(2)})
    assert InnerProductManipulation(share=.2, epsilon=0.5).craft(honest)['a'].tolist() == [-0.5, -1.0]


def test_flipped_labels_are_masked_to_what_the_client_annotates():
    label = np.array([[0, 1, 2, 3, 255]], np.uint8)
    flip = LabelFlip(share=1.0).relabel(4)
    for classes, seen in (((0, 1, 2, 3), [3, 2, 1, 0, 255]), ((0, ), [254, 254, 254, 0, 255])):
        results = MaskToClient().transform(dict(gt_seg_map=label, annotated_classes=classes, relabelled_classes=flip))
        assert results['gt_seg_map'].tolist() == [seen]


def test_a_greater_share_holds_the_clients_of_a_smaller_one():
    names = [str(number) for number in range(20)]
    found = []
    for share in (0.1, 0.2, 0.3):
        hostile = HostileClients([SignFlip(share=share)])
        hostile.setup(names, 4, seed=5)
        found.append(set(hostile.attack_of))
    assert [len(one) for one in found] == [2, 4, 6]
    assert found[0] < found[1] < found[2]
    hostile = HostileClients([SignFlip(clients=[3, 'x']), LabelFlip(share=0.5)])
    hostile.setup(['a', 'b', 'c', 'd', 'x', 'e'], 4, seed=5)
    assert {type(hostile.attack_of[client]) for client in (3, 4)} == {SignFlip}
    assert len(hostile.attack_of) == 5


def test_mistakes_are_one_sentence():
    with pytest.raises(FedSegError, match='share or .* must say who is hostile'):
        SignFlip()
    with pytest.raises(FedSegError, match='must be a number above 0 and at most 1, but is 2'):
        SignFlip(share=2)
    for attack, words in ((SignFlip(clients=[9]), 'names the client 9'), (SignFlip(share=.1), 'makes none of the 3')):
        with pytest.raises(FedSegError, match=words):
            HostileClients([attack]).setup(['0', '1', '2'], 4, seed=0)


def run(data, work_dir, attack, *hooks, **changes):
    attacks = {'federated.attacks': [attack]} if attack else {}
    return train(tiny_config(data, work_dir, **{
        'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 9, 'federated.clients_per_round': 8,
        'federated.local_epochs': 1, **attacks, **changes}), *hooks)


def moved(update, given, names):
    return torch.cat([(update[name] - given[name]).flatten() for name in names])


@pytest.mark.parametrize('attack', [dict(type='SignFlip', scale=3.0), dict(type='ALIE', z=2.0),
                                    dict(type='InnerProductManipulation', epsilon=2.0)])
def test_what_arrives_of_hostile_clients(tiny_data, tmp_path, attack):
    honest, hostile = Recorder(), Recorder()
    one_round = {'train_cfg.max_rounds': 1}
    runner = run(tiny_data, tmp_path / 'honest', None, honest, **one_round)
    run(tiny_data, tmp_path / 'hostile', dict(**attack, clients=[1, 4]), hostile, **one_round)
    names = [name for name, _ in runner.model.named_parameters()]
    cohort = runner.train_loop.round_log.cohort
    before = {client: moved(update, honest.given, names).double()
              for client, (update, _) in zip(cohort, honest.updates)}
    others = torch.stack([before[client] for client in cohort if client not in (1, 4)])
    order = cohort if attack['type'] == 'SignFlip' else [*(one for one in cohort if one not in (1, 4)),
                                                         *(one for one in cohort if one in (1, 4))]
    after = {client: moved(update, hostile.given, names).double()
             for client, (update, _) in zip(order, hostile.updates)}
    for client in cohort:
        expected = before[client]
        if client in (1, 4):
            expected = dict(SignFlip=-3 * expected, ALIE=others.mean(0) - 2 * others.std(0, correction=0),
                            InnerProductManipulation=-2 * others.mean(0))[attack['type']]
        torch.testing.assert_close(after[client], expected, rtol=1e-3, atol=1e-6)


def test_a_flipped_label_reaches_the_training(tiny_data, tmp_path):
    honest, hostile = Recorder(), Recorder()
    run(tiny_data, tmp_path / 'honest', None, honest, **{'train_cfg.max_rounds': 1})
    runner = run(tiny_data, tmp_path / 'hostile', dict(type='LabelFlip', clients=[2]), hostile,
                 **{'train_cfg.max_rounds': 1})
    same = [all(torch.equal(one[name], two[name]) for name in one)
            for (one, _), (two, _) in zip(honest.updates, hostile.updates)]
    assert same == [client != 2 for client in runner.train_loop.round_log.cohort]


@pytest.mark.parametrize('attack', ['ALIE', 'GaussianNoise', 'LabelFlip'])
def test_same_seed_same_bits_and_resumed(tiny_data, tmp_path, attack):
    """With SCAFFOLD, whose second quantity is attacked too, and updates that are compressed."""
    attack = dict(type=attack, share=0.25)
    changes = {'federated.algorithm': dict(type='SCAFFOLD'), 'federated.clients_per_round': 5,
               'federated.processors': [dict(type='TopKCompression', ratio=0.5)]}
    whole = run(tiny_data, tmp_path / 'whole', attack, **changes)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_data, tmp_path / 'parts', attack, Interrupt(1), **changes)
    parts = run(tiny_data, tmp_path / 'parts', attack, resume=True, **changes)
    assert_same_bits(model_weights(whole), model_weights(parts))
    assert all(tensor.isfinite().all() for tensor in model_weights(whole).values() if tensor.is_floating_point())


def test_colluding_clients_in_two_processes(tiny_data, tmp_path):
    """The attackers of one process know the honest clients of the other."""
    configs = {name: write_config(tiny_data, tmp_path / name, **{
        'federated.attacks': [dict(type='ALIE', z=2.0, share=0.25)], 'train_cfg.max_rounds': 1,
        'train_cfg.val_interval': 9, 'federated.clients_per_round': 8, 'federated.local_epochs': 1})
        for name in ('one', 'two')}
    done = run_tool('fed_train', configs['one'])
    assert done.returncode == 0, done.stderr
    assert 'Hostile clients, as set in federated.attacks: ALIE by ' in done.stdout + done.stderr
    done = run_processes(2, 'fed_train', configs['two'])
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (weights_of(tmp_path / name / 'round_1.pth') for name in configs)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5, msg=name)


def test_what_does_not_go_together_is_refused(tiny_data, tmp_path):
    with pytest.raises(FedSegError, match='LocalOnly is a bound .* leave out federated.attacks'):
        run(tiny_data, tmp_path, dict(type='SignFlip', share=0.5), **{'federated.algorithm': dict(type='LocalOnly')})
    with pytest.raises(FedSegError, match='clients that collude know the updates of others'):
        run(tiny_data, tmp_path, dict(type='ALIE', share=0.5), **{
            'federated.algorithm': dict(type='FedAvg', weighting='equal'),
            'federated.processors': [dict(type='DifferentialPrivacy', delta=1e-3, max_norm=1, noise_multiplier=1)]})
    with pytest.raises(FedSegError, match='did you mean `SignFlip`'):
        run(tiny_data, tmp_path, dict(type='SignFlp', share=0.5))


def test_a_client_that_takes_too_long_is_left_out_and_named(tiny_data, tmp_path):
    """None can be fast enough, and the global model stays as it was; with time enough, nothing differs."""
    slow = run(tiny_data, tmp_path / 'slow', None, **{
        'federated.backend': dict(type='LocalBackend', client_time_limit=1e-9), 'federated.max_failed_rounds': 3})
    entries = slow.train_loop.round_log.clients
    assert len(entries) == 8
    assert all('it exceeded client_time_limit=1e-09: ' in entry['reason'] and not entry['used'] for entry in entries)
    free = run(tiny_data, tmp_path / 'free', None)
    limited = run(tiny_data, tmp_path / 'limited', None, **{
        'federated.backend': dict(type='LocalBackend', client_time_limit=600.0)})
    assert_same_bits(model_weights(free), model_weights(limited))
    assert not math.isnan(free.train_loop.round_log.clients[0]['loss'])
