"""FedNTD and PseudoLabels: what the received model says of unannotated pixels, against loops in float64."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedseg_mm import FedSegError
from fedseg_mm.algorithms import FedNTD, PseudoLabels
from fedseg_mm.structures import Broadcast, ClientContext
from tests.conftest import assert_same_bits, tiny_config
from tests.test_engine.test_federated_loop import model_weights, train

C = 5


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def batch(classes, seed=0):
    """Logits of the local and the received model, and a client's labels."""
    rng = np.random.RandomState(seed)
    here, there = rng.normal(0, 2, (2, 2, C, 4, 3))
    return here, there, rng.choice([*classes, 254, 255], (2, 4, 3))


def client(here, there, labels, classes, round=1):
    """A client whose labels have twice the size of the classifier's maps."""
    whole = torch.tensor(labels.repeat(2, 1).repeat(2, 2))
    return ClientContext(0, tuple(classes), 10, Broadcast(round, {}), None,
                         lambda weights, images: SimpleNamespace(logits=torch.tensor(there)), None, labels=whole,
                         maps=SimpleNamespace(logits=here))


def not_true_by_loops(here, there, labels, classes, beta, temperature, pixels):
    total = counted = 0
    for n, y, x in np.ndindex(*labels.shape):
        label = labels[n, y, x]
        if label == 255 or (pixels == 'unannotated' and label != 254):
            continue
        among = [c for c in range(C) if (c not in classes if label == 254 else c != label)]
        if not among:
            continue
        q, q_global = (softmax(z[n, among, y, x] / temperature) for z in (here, there))
        total += (q_global * np.log(q_global / q)).sum()
        counted += 1
    return beta * total / max(counted, 1)


def pseudo_by_loops(here, there, labels, classes, weight, threshold):
    total = counted = 0
    absent = [c for c in range(C) if c not in classes]
    for n, y, x in np.ndindex(*labels.shape):
        if labels[n, y, x] != 254 or not absent:
            continue
        q_global = softmax(there[n, absent, y, x])
        if q_global.max() >= threshold:
            total -= np.log(softmax(here[n, :, y, x])[absent[q_global.argmax()]])
            counted += 1
    return weight * total / max(counted, 1)


def check(algorithm, name, by_loops, classes):
    """Value, and gradient along one direction."""
    here, there, labels = batch(classes)
    z = torch.tensor(here, requires_grad=True)
    losses = algorithm.local_loss(client(z, there, labels, classes))
    assert losses.keys() == {name}
    losses[name].backward()
    assert losses[name].item() == pytest.approx(by_loops(here, there, labels), rel=1e-5, abs=1e-7)
    direction = np.random.RandomState(1).normal(0, 1, here.shape)
    ahead, behind = (by_loops(here + sign * 1e-4 * direction, there, labels) for sign in (1, -1))
    assert (z.grad.numpy() * direction).sum() == pytest.approx((ahead - behind) / 2e-4, rel=1e-4, abs=1e-7)


CLASSES = [(0, ), (1, 3), (0, 1, 2, 3), tuple(range(C))]


@pytest.mark.parametrize('pixels', ['all', 'unannotated'])
@pytest.mark.parametrize('beta, temperature', [(1.0, 1.0), (0.3, 2.0)])
@pytest.mark.parametrize('classes', CLASSES)
def test_not_true_distillation_equals_the_definition(classes, beta, temperature, pixels):
    check(FedNTD(beta, temperature, pixels), 'loss_not_true', lambda here, there, labels: not_true_by_loops(
        here, there, labels, classes, beta, temperature, pixels), classes)


@pytest.mark.parametrize('weight, threshold', [(1.0, 0.0), (0.5, 0.6), (0.5, 1.0)])
@pytest.mark.parametrize('classes', CLASSES)
def test_pseudo_labels_equal_the_definition(classes, weight, threshold):
    check(PseudoLabels(weight, threshold), 'loss_pseudo',
          lambda here, there, labels: pseudo_by_loops(here, there, labels, classes, weight, threshold), classes)


def test_an_equal_model_has_nothing_to_distil():
    here, _, labels = batch((0, ))
    z = torch.tensor(here, requires_grad=True)
    loss, = FedNTD().local_loss(client(z, here, labels, (0, ))).values()
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-7) and z.grad.abs().max() < 1e-7


def test_one_absent_class_is_known_and_its_share_is_one():
    """Among a single class there is nothing to divide."""
    here, there, labels = batch((0, 1, 2, 3))
    loss, = FedNTD(pixels='unannotated').local_loss(
        client(torch.tensor(here), there, labels, (0, 1, 2, 3))).values()
    assert loss.item() == 0


def run(data, work_dir, **algorithm):
    return train(tiny_config(data, work_dir, **{
        'federated.algorithm': algorithm, 'train_cfg.max_rounds': 2,
        'federated.partitioner': dict(type='ClassPartitioner', num_clients=4, classes_per_client=1)}))


@pytest.mark.parametrize('algorithm', [dict(type='FedNTD', beta=0.), dict(type='PseudoLabels', loss_weight=0.),
                                       dict(type='PseudoLabels', start_round=9)])
def test_without_weight_it_is_fedavg_bit_for_bit(tiny_data, tmp_path, algorithm):
    fedavg, other = (model_weights(run(tiny_data, tmp_path / one['type'], **one))
                     for one in (dict(type='FedAvg'), algorithm))
    assert_same_bits(fedavg, other)


@pytest.mark.parametrize('algorithm', [dict(type='FedNTD'), dict(type='PseudoLabels', threshold=0.)])
def test_a_real_run_learns_from_the_term(tiny_data, tmp_path, algorithm):
    fedavg, other = (model_weights(run(tiny_data, tmp_path / one['type'], **one))
                     for one in (dict(type='FedAvg'), algorithm))
    assert fedavg.keys() == other.keys() and not all(torch.equal(fedavg[name], other[name]) for name in fedavg)


@pytest.mark.parametrize('make, sentence', [
    (lambda: FedNTD(beta=-1), 'beta must be a number at least 0'), (lambda: FedNTD(temperature=0), 'temperature must'),
    (lambda: FedNTD(pixels='void'), "pixels must be 'all' or 'unannotated'"),
    (lambda: PseudoLabels(threshold=1.1), 'threshold must be'), (lambda: PseudoLabels(start_round=-1), 'start_round')])
def test_arguments_out_of_range_are_refused(make, sentence):
    with pytest.raises(FedSegError, match=f'federated.algorithm.{sentence}'):
        make()
