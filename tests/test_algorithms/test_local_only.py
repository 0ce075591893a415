from mmengine.hooks import Hook

from fedseg_mm.structures import Broadcast
from tests.conftest import assert_same_bits, tiny_config, weights_of
from tests.test_engine.test_federated_loop import model_weights, train


class Initial(Hook):

    def before_train(self, runner):
        self.weights = model_weights(runner)


def test_every_client_trains_alone_from_the_initial_model(tiny_data, tmp_path):
    """In three rounds of two of four clients, each client's model is that of training it alone in its rounds."""
    changes = {'federated.partitioner': dict(type='ClassPartitioner', num_clients=4, classes_per_client=2),
               'federated.clients_per_round': 2, 'train_cfg.val_interval': 9, 'param_scheduler': []}
    initial = Initial()
    runner = train(tiny_config(tiny_data, tmp_path / 'local', **{
        'federated.algorithm': dict(type='LocalOnly'), **changes}), initial)
    federation = runner.train_loop.federation

    alone = train(tiny_config(tiny_data, tmp_path / 'alone', **changes, **{'train_cfg.max_rounds': 1}))
    trainer = alone.train_loop.federation.backend.trainer  # of FedAvg, which keeps nothing at the clients
    rounds = [federation.sampler.cohort(5, round) for round in range(3)]
    assert max(sum(client in cohort for cohort in rounds) for client in range(4)) > 1
    for client in range(4):
        weights = initial.weights
        for round, cohort in enumerate(rounds):
            if client in cohort:
                update = trainer.fit(client, Broadcast(round, weights))
                weights = {name: tensor.clone() for name, tensor in update.weights.items()}
        stored = federation.backend.store.load(client)
        if any(client in cohort for cohort in rounds):
            assert_same_bits(stored['weights'], weights)
        else:
            assert not stored

    # the global model stays the initial one
    assert_same_bits(model_weights(runner), initial.weights)
    assert_same_bits(weights_of(tmp_path / 'local' / 'round_3.pth'), initial.weights)
