from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from fedseg_mm.algorithms import MOON
from fedseg_mm.structures import Broadcast, ClientContext
from tests.conftest import assert_same_bits, tiny_config
from tests.test_engine.test_federated_loop import train


def by_definition(here, received, last, mu, temperature):
    """Equation 3, image by image in float64; z is the mean over the pixels."""
    losses = []
    for z, z_received, z_last in zip(*(features.mean((2, 3)) for features in (here, received, last))):
        toward, away = (np.exp(z @ other / np.linalg.norm(z) / np.linalg.norm(other) / temperature)
                        for other in (z_received, z_last))
        losses.append(-np.log(toward / (toward + away)))
    return mu * np.mean(losses)


def features(seed):
    return np.random.RandomState(seed).normal(0.3, 1, (2, 5, 3, 2))


def client(here, received, last):
    """A client whose frozen model has the features that its weights are."""
    return ClientContext(
        0, (0, ), 10, Broadcast(1, dict(features=torch.tensor(received))), None,
        lambda weights, images: SimpleNamespace(embeddings=weights['features']), None,
        state={} if last is None else dict(features=torch.tensor(last)),
        maps=SimpleNamespace(embeddings=here))


@pytest.mark.parametrize('mu, temperature', [(1.0, 0.5), (5.0, 0.1)])
def test_value_and_gradient_equal_the_definition(mu, temperature):
    here, received, last = (features(seed) for seed in range(3))
    embeddings = torch.tensor(here, requires_grad=True)
    losses = MOON(mu, temperature).local_loss(client(embeddings, received, last))
    losses['loss_moon'].backward()
    assert losses.keys() == {'loss_moon'}
    assert losses['loss_moon'].item() == pytest.approx(by_definition(here, received, last, mu, temperature), rel=1e-5)
    gradient = np.empty_like(here)
    for place in np.ndindex(*here.shape):
        step = np.zeros_like(here)
        step[place] = 1e-5
        gradient[place] = (by_definition(here + step, received, last, mu, temperature)
                           - by_definition(here - step, received, last, mu, temperature)) / 2e-5
    np.testing.assert_allclose(embeddings.grad.numpy(), gradient, rtol=1e-4, atol=1e-6)


def test_nothing_to_contrast_with_is_no_term():
    here, received, last = (features(seed) for seed in range(3))
    assert MOON().local_loss(client(torch.tensor(here), received, None)) == {}
    assert MOON(mu=0).local_loss(client(torch.tensor(here), received, last)) == {}


class Watch(Hook):
    """Checks what the frozen model is run with and what clients keep; collects their metrics."""

    def __init__(self):
        self.sent, self.metrics = {}, []

    def before_round(self, runner, cohort, broadcast):
        self.received = {name: tensor.clone() for name, tensor in broadcast.weights.items()}
        trainer = runner.train_loop.federation.backend.trainer
        if runner.epoch == 0:
            frozen = trainer.frozen_model

            def watched(weights, images):
                self.run_with.append(dict(weights))
                return frozen(weights, images)

            trainer.frozen_model = watched

    def before_client(self, runner, client):
        self.run_with = []

    def after_client(self, runner, update):
        self.metrics.append(dict(update.metrics))
        if runner.epoch == 0:
            assert not self.run_with
        else:
            assert len(self.run_with) == 2 * update.num_steps
            for received, last in zip(self.run_with[::2], self.run_with[1::2]):
                assert_same_bits(received, self.received)
                assert_same_bits(last, self.sent[update.client])
        self.sent[update.client] = {name: tensor.clone() for name, tensor in update.weights.items()}
        stored = runner.train_loop.federation.backend.store.load(update.client)
        assert not stored['weights']
        assert_same_bits(stored['state'], self.sent[update.client])


def test_the_previous_model_is_the_one_that_the_client_sent_last(tiny_data, tmp_path):
    watch = Watch()
    train(tiny_config(tiny_data, tmp_path, **{
        'federated.algorithm': dict(type='MOON', mu=2.0), 'federated.clients_per_round': 2,
        'federated.partitioner': dict(type='ClassPartitioner', num_clients=2, classes_per_client=2),
        'federated.local_epochs': 1, 'train_cfg.max_rounds': 2}), watch)
    assert len(watch.metrics) == 4
    for metrics in watch.metrics[:2]:
        assert 'loss_moon' not in metrics
    for metrics in watch.metrics[2:]:
        assert 0 < metrics['loss_moon'] < 2 * np.log(1 + np.exp(2 / 0.5))  # similarities are within -1 and 1
        assert metrics['loss'] == pytest.approx(metrics['decode.loss_back_ce'] + metrics['loss_moon'], rel=1e-5)


def test_one_client_stands_between_two_equal_models(tiny_data, tmp_path):
    """Its last model is the global one: the loss is mu * log 2."""
    metrics = []

    class Record(Hook):

        def after_client(self, runner, update):
            metrics.append(update.metrics)

    train(tiny_config(tiny_data, tmp_path, **{
        'federated.algorithm': dict(type='MOON', mu=2.0), 'federated.clients_per_round': 1,
        'federated.partitioner': dict(type='ClassPartitioner', num_clients=1, classes_per_client=4),
        'federated.local_epochs': 1, 'train_cfg.max_rounds': 2}), Record())
    assert metrics[1]['loss_moon'] == pytest.approx(2 * np.log(2), rel=1e-5)
