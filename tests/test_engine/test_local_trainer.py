import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from fedseg_mm import FedSegError
from fedseg_mm.algorithms import FedAvg
from fedseg_mm.config import federate
from fedseg_mm.models import BackCELoss, PixelFeatures
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.structures import Broadcast
from tests.conftest import assert_same_bits, tiny_config


@pytest.fixture(params=['SGD', dict(type='Adam'), 'accumulate'], ids=str)
def trainer(request, tiny_data, tmp_path):
    """The trainer of a real run, after its first round."""
    changes = {'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9}
    if isinstance(request.param, dict):
        changes['optim_wrapper.optimizer'] = dict(lr=0.01, _delete_=True, **request.param)
    if request.param == 'accumulate':
        changes['optim_wrapper.accumulative_counts'] = 4
    cfg = tiny_config(tiny_data, tmp_path, **changes)
    federate(cfg)
    cfg.experiment_name = f'trainer_{abs(hash(str(request.param)))}'
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner.train_loop.federation.backend.trainer


def snapshot(update):
    return {name: tensor.clone() for name, tensor in update.weights.items()}


def global_weights(trainer, round=0):
    return Broadcast(round, {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})


def test_a_clients_training_does_not_depend_on_those_before(trainer):
    broadcast = global_weights(trainer)
    first = snapshot(trainer.fit(2, broadcast))
    trainer.fit(5, broadcast)
    trainer.fit(0, global_weights(trainer, round=7))
    torch.manual_seed(99)
    torch.rand(7)
    second = trainer.fit(2, broadcast)
    assert_same_bits(first, second.weights)
    assert any(not torch.equal(first[name], broadcast.weights[name]) for name in first)


def test_another_round_is_another_training(trainer):
    broadcast = global_weights(trainer)
    first = snapshot(trainer.fit(2, broadcast))
    second = trainer.fit(2, Broadcast(1, broadcast.weights)).weights
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_the_broadcast_is_read_and_not_changed(trainer):
    broadcast = global_weights(trainer)
    before = {name: tensor.clone() for name, tensor in broadcast.weights.items()}
    trainer.fit(1, broadcast)
    assert_same_bits(before, broadcast.weights)


@pytest.mark.parametrize('trainer', [
    dict(type='SGD', momentum=0.9, nesterov=True, weight_decay=0.1), dict(type='SGD', momentum=0.9, dampening=0.5),
    dict(type='SGD'), dict(type='Adam', amsgrad=True), dict(type='AdamW'), dict(type='NAdam'), dict(type='RMSprop')],
    indirect=True, ids=str)
def test_nothing_of_a_client_stays_in_the_optimizer(trainer):
    """Compared with an optimizer that has not made a step."""
    broadcast, optimizer = global_weights(trainer), trainer.optim_wrapper.optimizer
    optimizer.state.clear()
    expected = snapshot(trainer.fit(1, broadcast))
    trainer.fit(5, broadcast)
    assert_same_bits(expected, trainer.fit(1, broadcast).weights)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_back_ce_knows_the_clients_classes_while_it_trains(trainer):
    loss, = (module for module in trainer.model.modules() if isinstance(module, BackCELoss))
    seen = []
    loss.register_forward_pre_hook(lambda module, args: seen.append(module._classes))
    for client in (0, 7):
        trainer.fit(client, global_weights(trainer))
        assert set(seen) == {(trainer.stream.batch_sampler.shards[client].classes, )}
        seen.clear()
    assert loss._classes == (None, ) and loss._unannotated is None


def test_update_tells_images_steps_and_loss(trainer):
    update = trainer.fit(3, global_weights(trainer))
    shard = trainer.stream.batch_sampler.shards[3]
    assert update.client == 3 and update.num_images == len(shard.indices)
    assert update.num_steps == 2 * max(1, len(shard.indices) // 2)
    assert update.is_finite and update.metrics['loss'] == pytest.approx(update.metrics['decode.loss_back_ce'])


def test_losses_that_are_python_numbers(trainer, monkeypatch):
    """A method's term may be a plain 0 where it has nothing to say, and what a model logs beside tensors too."""
    monkeypatch.setattr(type(trainer.algorithm), 'local_loss', lambda self, context: dict(loss_none=0.0, share=2))
    monkeypatch.setattr(trainer, '_overrides', lambda name: name == 'local_loss')
    trainer._features = PixelFeatures(trainer.model)
    step = trainer.model.train_step
    monkeypatch.setattr(trainer.model, 'train_step', lambda *args, **kwargs: {**step(*args, **kwargs), 'extra': 1.5})
    metrics = trainer.fit(3, global_weights(trainer)).metrics
    assert metrics['loss_none'] == 0 and metrics['share'] == 2 and metrics['extra'] == 1.5
    assert metrics['loss'] == pytest.approx(metrics['decode.loss_back_ce'])


def test_a_term_that_would_not_be_optimised_is_refused(trainer, monkeypatch):
    monkeypatch.setattr(type(trainer.algorithm), 'local_loss',
                        lambda self, context: dict(near=context.embeddings.mean()))
    monkeypatch.setattr(trainer, '_overrides', lambda name: name == 'local_loss')
    trainer._features = PixelFeatures(trainer.model)
    with pytest.raises(FedSegError, match="local_loss of FedAvg gives `near`, .* call it loss_near, or detach it"):
        trainer.fit(3, global_weights(trainer))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_noticed(trainer, value):
    weights = dict(global_weights(trainer).weights)
    name = 'decode_head.conv_seg.bias'
    weights[name] = torch.full_like(weights[name], value)
    assert not trainer.fit(0, Broadcast(0, weights)).is_finite


class LastBatch(Hook):
    """Keeps what BackCE was given, and what each client sent."""

    def __init__(self):
        self.updates = []

    def before_round(self, runner, cohort, broadcast):
        self.bias = broadcast.weights['decode_head.conv_seg.bias'].double()
        runner.model.decode_head.loss_decode.register_forward_pre_hook(self.keep)

    def keep(self, loss, args):
        self.logits, self.label, self.unannotated = args[0].detach().double(), args[1], loss._unannotated

    def after_client(self, runner, update):
        self.updates.append((update.client, self.logits, self.label, self.unannotated,
                             update.weights['decode_head.conv_seg.bias'].double()))


def test_one_step_by_hand(tiny_data, tmp_path):
    """A client with one batch, SGD without momentum: what it sends follows from the closed form of BackCE's gradient.

    The bias of the classifier moves every pixel's logit alike, so its gradient is the sum over the pixels.
    """
    cfg = tiny_config(tiny_data, tmp_path, **{
        'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9, 'optim_wrapper.optimizer.momentum': 0,
        'federated.local_epochs': 1, 'train_dataloader.batch_size': 24})
    federate(cfg)
    cfg.experiment_name = 'trainer_by_hand'
    runner = Runner.from_cfg(cfg)
    batch = LastBatch()
    runner.register_hook(batch)
    runner.train()
    assert len(batch.updates) == 3
    for client, logits, label, unannotated, bias in batch.updates:
        classes = set(runner.train_loop.federation.partition.clients[client].classes)
        assert set(label.unique().tolist()) <= {*classes, 255} and unannotated.any()
        absent = torch.tensor([c not in classes for c in range(4)])
        p = logits.softmax(1).movedim(1, -1)  # (N, H, W, C)
        shown = label != 255
        target = torch.where(absent, p / p[..., absent].sum(-1, keepdim=True), 0)  # of an unannotated pixel
        target[shown] = torch.nn.functional.one_hot(label[shown], 4).double()
        counted = shown | unannotated
        gradient = (p - target)[counted].sum(0) / counted.sum()
        torch.testing.assert_close(bias, batch.bias - 0.05 * gradient, rtol=1e-5, atol=1e-7)


def test_a_second_survey_says_that_there_is_none(tiny_data, tmp_path):
    """Instead of a loop over nothing."""

    @ALGORITHMS.register_module(force=True)
    class LooksTwice(FedAvg):

        def surveys(self, round):
            return True

        def setup_client(self, context):
            assert sum(len(images) for images, _ in context.survey()) == context.num_images
            list(context.survey())

    cfg = tiny_config(tiny_data, tmp_path, **{'federated.algorithm': dict(type='LooksTwice')})
    federate(cfg)
    cfg.experiment_name = 'looks_twice'
    with pytest.raises(FedSegError, match='LooksTwice asks for a second survey of client .* context.memory'):
        Runner.from_cfg(cfg).train()
