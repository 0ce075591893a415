"""Every aggregator with every method and update processor: a round of real updates each, and what is refused."""
from dataclasses import replace

import pytest
import torch
from mmengine.hooks import Hook

from fedseg_mm import FedSegError
from fedseg_mm.algorithms.fedavg import load_weights
from fedseg_mm.federation import Federation
from fedseg_mm.processors import ProcessorContext
from fedseg_mm.registry import AGGREGATORS, ALGORITHMS, ATTACKS, UPDATE_PROCESSORS
from fedseg_mm.structures import ClientUpdate, FederationInfo
from tests.conftest import CLASSES, assert_same_bits, tiny_config
from tests.test_engine.test_federated_loop import train

MEAN = dict(type='WeightedMean')
BY_COORDINATE = [dict(type='CoordinateMedian'), dict(type='TrimmedMean', trim=0.2)]
COMBINE = [MEAN, *BY_COORDINATE, dict(type='GeometricMedian'),
           dict(type='NormClippedMean', max_norm=0.05), dict(type='Krum', num_malicious=1),
           dict(type='MultiKrum', num_malicious=1, num_selected=3)]
NOISE = [dict(type='GaussianMechanism', noise_multiplier=0.01, max_norm=0.05)]
PROCESS = [[], [dict(type='NormClipping', max_norm=0.05)], [dict(type='BFloat16Compression')],
           [dict(type='Int8Compression')], [dict(type='TopKCompression', ratio=0.1)],
           NOISE, [dict(type='NormClipping', max_norm=0.05), dict(type='TopKCompression', ratio=0.2)]]
METHODS = [dict(type='FedAvg'), dict(type='FedProx'), dict(type='FedDyn', alpha=0.1), dict(type='MOON'),
           dict(type='SCAFFOLD'), dict(type='FedAvgM'), dict(type='FedAdam'), dict(type='FedYogi'), dict(type='FedBN'),
           dict(type='SiloBN'), dict(type='FedSeg', start_round=0, embedding_channels=16), dict(type='FedNTD'),
           dict(type='PseudoLabels', start_round=0)]
EQUAL = dict(type='FedAvg', weighting='equal')
BOUNDS = [dict(type='Centralised'), dict(type='LocalOnly')]
ATTACK = [dict(type='SignFlip', share=0.25), dict(type='Scaling', share=0.25), dict(type='GaussianNoise', share=0.25),
          dict(type='ALIE', share=0.25), dict(type='InnerProductManipulation', share=0.25),
          dict(type='LabelFlip', share=0.25)]
POLICIES = ('average', 'local_statistics', 'local')
PRIVATE = [dict(type='DifferentialPrivacy', delta=1e-3, max_norm=1, noise_multiplier=1)]
#: Methods whose global model is what the aggregator gives, and nothing else.
PLAIN = ('FedAvg', 'FedProx', 'MOON', 'FedBN', 'SiloBN', 'FedSeg', 'FedNTD', 'PseudoLabels')
CLASSIFIER = 'decode_head.conv_seg.weight'


def test_the_tables_name_every_part():
    for registry, named in ((AGGREGATORS, COMBINE), (ALGORITHMS, METHODS + BOUNDS), (ATTACKS, ATTACK),
                            (UPDATE_PROCESSORS, [one for some in [*PROCESS, PRIVATE] for one in some])):
        own = {name for name, kind in registry.module_dict.items() if kind.__module__.startswith('fedseg_mm.')}
        assert {one['type'] for one in named} == own


class Recorder(Hook):
    """Keeps what the clients of a round were given and sent."""

    def before_round(self, runner, cohort, broadcast):
        self.given = {name: tensor.clone() for name, tensor in broadcast.model.items()}
        self.extras, self.updates = {name: tensor.clone() for name, tensor in broadcast.extras.items()}, []

    def after_client(self, runner, update):
        weights = {name: tensor.clone() for name, tensor in {**update.weights, **update.unshared}.items()}
        self.updates.append(replace(update, weights=weights, unshared={}, extras={
            name: tensor.clone() for name, tensor in update.extras.items()}))


def trained(data, work_dir, method) -> tuple:
    """A round of a method, as it is trained: the runner, and what was given and sent."""
    recorder = Recorder()
    cfg = tiny_config(data, work_dir, **{
        'federated.algorithm': method, 'federated.clients_per_round': 5, 'federated.local_epochs': 1,
        'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9})
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = cfg.default_hooks.checkpoint = None
    return train(cfg, recorder), recorder


def made(**parts) -> Federation:
    return Federation(dict(type='ClassPartitioner', num_clients=8), 5, **parts)


def started(runner, sent: Recorder, **parts) -> Federation:
    """A federation of these parts, at the beginning of the round that was trained."""
    federation, before = made(**parts), runner.train_loop.federation
    federation.seed, federation.model = before.seed, runner.model
    federation.take_clients(before.summary)
    federation.algorithm.setup(runner.model, FederationInfo(
        8, len(CLASSES), before.seed, federation.make_aggregator, federation.processors))
    federation.processors.setup(before.seed)
    load_weights(runner.model, sent.given)
    federation.algorithm.start(runner.model)
    federation.algorithm.begin_round(0)
    return federation


def as_they_leave(federation: Federation, updates: list[ClientUpdate]) -> list[ClientUpdate]:
    """What leaves the clients of what was trained: attacks and update processors see it."""
    algorithm, left = federation.algorithm, []
    own, received = set(algorithm.unshared), algorithm.shared_weights
    for update in updates:
        unshared = {name: tensor for name, tensor in update.weights.items() if name in own}
        update = replace(update, weights={
            name: tensor for name, tensor in update.weights.items() if name not in own})
        update = federation.hostile.alter(update, algorithm.broadcast(0), algorithm.trained)
        if algorithm.processors.processors:
            context = ProcessorContext(federation.seed, 0, update.client, frozenset(algorithm.trained),
                                       algorithm.update_weight(update))
            payload = algorithm.processors.at_client(algorithm.change_of(update.weights, received), context)
            whole = {name: tensor for name, tensor in update.weights.items() if not tensor.is_floating_point()}
            update = replace(update, weights=whole, payload=payload)
        left.append(replace(update, unshared=unshared))
    return left


def as_they_arrive(updates: list[ClientUpdate]) -> list[ClientUpdate]:
    """The same, read from bytes."""
    return [replace(ClientUpdate.from_bytes(update.to_bytes()), unshared=update.unshared) for update in updates]


def finished(federation: Federation, updates: list[ClientUpdate]) -> dict[str, torch.Tensor]:
    """The new global model."""
    algorithm = federation.algorithm
    for update in federation.hostile.join(updates, [one.client for one in updates], algorithm.broadcast(0), algorithm):
        assert update.is_finite
        algorithm.receive(update)
    algorithm.all_reduce()
    algorithm.step(federation.model)
    return algorithm.weights


def is_senseless(aggregator: dict, processors: list[dict]) -> bool:
    return aggregator in BY_COORDINATE and any(one['type'] == 'TopKCompression' for one in processors)


@pytest.mark.parametrize('method', METHODS, ids=lambda method: method['type'])
def test_every_method_with_every_aggregator_and_processor(tiny_data, tmp_path, method):
    """What the server makes of real updates, as they travel.

    Of triples, every pair is there: aggregators take turns from method to
    method, and policies of batch normalisation from processor to processor.
    """
    runner, sent = trained(tiny_data, tmp_path, method)
    result = {name: tensor.clone() for name, tensor in runner.train_loop.federation.algorithm.weights.items()}
    federation = started(runner, sent, algorithm=method)
    updates = as_they_arrive(as_they_leave(federation, sent.updates))
    assert_same_bits(finished(federation, updates), result)  # as in the run itself
    before = sent.given[CLASSIFIER]
    values = torch.stack([before, *(update.weights[CLASSIFIER] for update in sent.updates)])
    for aggregator in COMBINE[1:]:
        weights = finished(started(runner, sent, algorithm=method, aggregator=aggregator), updates)[CLASSIFIER]
        assert weights.isfinite().all() and not torch.equal(weights, before), aggregator
        if method['type'] in PLAIN:
            assert ((values.amin(0) - 1e-6 <= weights) & (weights <= values.amax(0) + 1e-6)).all(), aggregator
    for place, processors in enumerate(PROCESS):
        algorithm = method if method['type'] in ('FedBN', 'SiloBN') else {**method, 'batch_norm': POLICIES[place % 3]}
        if processors == NOISE and method['type'] not in ('FedDyn', 'SCAFFOLD'):
            with pytest.raises(FedSegError, match='^[^\n]*set federated.algorithm.weighting=equal$'):
                made(processors=processors, algorithm=algorithm)
            algorithm = {**algorithm, 'weighting': 'equal'}
        parts = dict(processors=processors, algorithm=algorithm,
                     aggregator=COMBINE[(place + METHODS.index(method)) % len(COMBINE)])
        if is_senseless(parts['aggregator'], processors):
            with pytest.raises(FedSegError, match='^[^\n]*nearly all that clients send with TopKCompression: [^\n]*$'):
                made(**parts)
            parts['aggregator'] = MEAN
        federation = started(runner, sent, **parts)
        weights = finished(federation, as_they_arrive(as_they_leave(federation, sent.updates)))
        assert weights.keys() == result.keys() and not torch.equal(weights[CLASSIFIER], before), parts
        assert all(tensor.isfinite().all() for tensor in weights.values()), parts


@pytest.mark.parametrize('method, aggregators', [(EQUAL, COMBINE), (dict(type='SCAFFOLD'), COMBINE[4:6])])
def test_every_attack_on_every_aggregator(tiny_data, tmp_path, method, aggregators):
    """And on every update processor, in turn."""
    runner, sent = trained(tiny_data, tmp_path, method)
    for attack in ATTACK[:-1]:  # the last changes labels, and no update
        for place, aggregator in enumerate(aggregators):
            processors = PROCESS[(place + ATTACK.index(attack)) % len(PROCESS)]
            parts = dict(algorithm=method, aggregator=MEAN if is_senseless(aggregator, processors) else aggregator,
                         processors=processors)
            federation = started(runner, sent, attacks=[attack], **parts)
            updates = as_they_leave(federation, sent.updates)
            weights = finished(federation, updates)
            assert all(tensor.isfinite().all() for tensor in weights.values()), (attack, parts)
            assert federation.hostile.attack_of.keys() & {update.client for update in updates}
            assert not torch.equal(weights[CLASSIFIER], sent.given[CLASSIFIER])


@pytest.mark.parametrize('bound', BOUNDS, ids=lambda bound: bound['type'])
def test_bounds_go_with_nothing_that_works_on_updates(bound):
    for part in (*(dict(aggregator=one) for one in COMBINE[1:]), *(dict(attacks=[one]) for one in ATTACK),
                 *(dict(processors=some) for some in [*PROCESS[1:], PRIVATE])):
        with pytest.raises(FedSegError, match=f'^{bound["type"]} is a bound without a federation, [^\n]*: leave out'):
            made(algorithm=bound, **part)
    assert made(algorithm=bound, aggregator=MEAN)


def test_what_privacy_does_not_go_with():
    for parts in (*(dict(aggregator=one) for one in COMBINE[1:]),
                  *(dict(processors=PRIVATE + some) for some in PROCESS[1:]),
                  *(dict(algorithm={**EQUAL, 'batch_norm': policy}) for policy in ('local', 'local_statistics',
                                                                                  'recalibrate')),
                  *(dict(algorithm=dict(type=name)) for name in ('SCAFFOLD', 'FedBN', 'SiloBN')),
                  *(dict(algorithm=method) for method in METHODS if method['type'] not in ('FedDyn', 'SCAFFOLD')),
                  *(dict(attacks=[one]) for one in ATTACK if one['type'] in ('ALIE', 'InnerProductManipulation')),
                  dict(sampler=dict(type='WeightedSampler')), dict(sampler=dict(type='ClassBalancedSampler'))):
        with pytest.raises(FedSegError, match='^[^\n]+$'):
            made(**{**dict(processors=PRIVATE, algorithm=EQUAL), **parts})
    for sampler in ('UniformSampler', 'PoissonSampler', 'AllClientsSampler'):
        assert made(processors=PRIVATE, algorithm=EQUAL, sampler=dict(type=sampler))


@pytest.mark.parametrize('parts, sentence', [
    (dict(algorithm=dict(type='FedBN', batch_norm='recalibrate')), 'unknown key `batch_norm` in federated.algorithm'),
    (dict(algorithm=dict(type='Centralised'), min_clients=2), 'federated.min_clients=2 is more than the 1 client of'),
    (dict(aggregator=dict(type='Krum', num_malicious=2)), '= 7 updates in a round, but there are 5'),
    (dict(processors=[dict(type='Int8Compression'), dict(type='TopKCompression', ratio=0.1)]), 'so it must come last')])
def test_what_makes_no_sense_is_one_sentence(parts, sentence):
    with pytest.raises(FedSegError, match=f'^[^\n]*{sentence}[^\n]*$'):
        made(**parts)


def test_a_sampler_that_takes_all_decides_how_many_there_are(tiny_data, tmp_path):
    """Whatever ``clients_per_round`` is, and not before the clients are known."""
    runner, _ = trained(tiny_data, tmp_path, dict(type='FedAvg'))
    for num_malicious, fits in ((2, True), (3, False)):  # of 8 clients
        federation = made(sampler=dict(type='AllClientsSampler'), aggregator=dict(type='Krum',
                                                                                  num_malicious=num_malicious))
        if fits:
            federation.take_clients(runner.train_loop.federation.summary)
            assert federation.cohort(0) == list(range(8))
            continue
        with pytest.raises(FedSegError, match='= 9 updates in a round, but there are 8'):
            federation.take_clients(runner.train_loop.federation.summary)


def test_all_images_in_one_place_need_no_sampler(tiny_data, tmp_path):
    runner, _ = trained(tiny_data, tmp_path, dict(type='Centralised'))
    for sampler in (dict(type='PoissonSampler', probability=0.01), dict(type='WeightedSampler', weights=[1.0] * 8),
                    dict(type='ClassBalancedSampler'), dict(type='AllClientsSampler')):
        federation = made(algorithm=dict(type='Centralised'), sampler=sampler)
        federation.take_clients(runner.train_loop.federation.summary)
        assert [federation.cohort(round) for round in range(3)] == [[0]] * 3
