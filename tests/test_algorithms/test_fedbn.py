"""On a ResNet, whose shortcuts hold batch norm under names (``downsample.1``) that do not say so."""
import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmseg.registry import MODELS
from torch import nn

from fedseg_mm import FedSegError
from fedseg_mm.algorithms import FedAvg
from tests.conftest import assert_same_bits, tiny_config
from tests.test_engine.test_federated_loop import model_weights, train

NORM = dict(type='BN')
BACKBONE = dict(type='ResNetV1c', depth=18, base_channels=8, stem_channels=8, norm_cfg=NORM, norm_eval=False)
HEAD = dict(type='FCNHead', channels=8, num_convs=1, concat_input=False, num_classes=4, norm_cfg=NORM, dropout_ratio=0,
            loss_decode=dict(type='BackCELoss'))


def config(data, work_dir, algorithm, rounds):
    """Two clients of twelve images each, both in every round; images as they are."""
    cfg = tiny_config(data, work_dir, **{
        'train_cfg.max_rounds': rounds, 'train_dataloader.batch_size': 4, 'federated.clients_per_round': 2,
        'federated.local_epochs': 1, 'federated.algorithm': algorithm,
        'federated.partitioner': dict(type='ClassPartitioner', num_clients=2, classes_per_client=2)})
    cfg.model.backbone = BACKBONE
    cfg.model.decode_head = dict(HEAD, in_channels=64, in_index=3)
    cfg.model.auxiliary_head = dict(HEAD, in_channels=32, in_index=2)
    cfg.train_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    return cfg


def batch_norm_names(model, *tensors) -> set[str]:
    return {f'{prefix}.{name}' for prefix, module in model.named_modules()
            if isinstance(module, nn.BatchNorm2d) for name in tensors}


class Exchange(Hook):
    """Keeps what clients start from and what they send, round by round."""

    def __init__(self):
        self.received, self.starts, self.sent, self.sizes = [], [], [], {}

    def before_round(self, runner, cohort, broadcast):
        self.received.append({name: tensor.clone() for name, tensor in broadcast.model.items()})
        self.announced = set(broadcast.weights)
        self.starts.append({})
        self.sent.append({})

    def before_client(self, runner, client):
        def keep(model, args, kwargs):  # at the first step; mode='loss' only
            if kwargs.get('mode') == 'loss':
                self.starts[-1].setdefault(client, model_weights(runner))

        self.handle = runner.model.register_forward_pre_hook(keep, with_kwargs=True)

    def after_client(self, runner, update):
        self.handle.remove()
        self.sizes[update.client] = update.num_images
        assert update.weights.keys() == self.announced and not update.weights.keys() & update.unshared.keys()
        whole = {**update.weights, **update.unshared}
        self.sent[-1][update.client] = {name: tensor.clone() for name, tensor in whole.items()}
        self.bytes = update.num_bytes


@pytest.mark.parametrize('algorithm, kept, sentence', [
    (dict(type='FedBN'), ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'),
     'every client keeps its layers; the checkpoint holds the mean of those of the last cohort'),
    (dict(type='SiloBN'), ('running_mean', 'running_var', 'num_batches_tracked'),
     'every client keeps its statistics; the checkpoint holds the mean of those of the last cohort'),
    (dict(type='FedProx', batch_norm='local'), ('weight', 'bias', 'running_mean', 'running_var',
                                                'num_batches_tracked'), 'every client keeps its layers'),
], ids=['FedBN', 'SiloBN', 'FedProx with local layers'])
def test_what_stays_and_what_is_shared(tiny_data, tmp_path, algorithm, kept, sentence):
    exchange = Exchange()
    runner = train(config(tiny_data, tmp_path, algorithm, rounds=2), exchange)
    own = batch_norm_names(runner.model, *kept)
    # what stays is neither sent nor counted
    assert exchange.announced == runner.model.state_dict().keys() - own
    assert exchange.bytes == sum(tensor.numel() * tensor.element_size() for name, tensor in
                                 runner.model.state_dict().items() if name not in own)
    assert 'backbone.layer2.0.downsample.1.running_var' in own and 'decode_head.convs.0.bn.running_mean' in own
    for client, begin in exchange.starts[1].items():
        last = exchange.sent[0][client]
        for name, tensor in begin.items():
            assert torch.equal(tensor, last[name] if name in own else exchange.received[1][name]), name
        apart = {name for name, tensor in begin.items() if not torch.equal(tensor, last[name])}
        assert not apart & own and {name for name, tensor in begin.items() if tensor.ndim == 4} <= apart
        stored = runner.train_loop.federation.backend.store.load(client)
        assert stored['weights'].keys() == own and not stored['state']
        assert_same_bits(stored['weights'], {name: exchange.sent[1][client][name] for name in own})

    checkpoint = torch.load(tmp_path / 'round_2.pth', weights_only=True)
    assert checkpoint['federated']['batch_norm'].startswith(sentence)
    sizes = [exchange.sizes[client] for client in exchange.sent[1]]
    for name, tensor in checkpoint['state_dict'].items():
        sent = [weights[name] for weights in exchange.sent[1].values()]
        if tensor.is_floating_point():
            mean = np.average([one.double().numpy() for one in sent], axis=0, weights=sizes)
            np.testing.assert_allclose(tensor.numpy(), mean, rtol=1e-5, atol=1e-6)
        else:
            assert tensor == max(sent)


def statistics_by_hand(cfg, weights, data, clients):
    """Mean and unbiased variance of what enters each layer, batch by batch in float64; the mean over the batches."""
    model = MODELS.build(cfg.model)
    model.load_state_dict(weights)
    model.double().train()
    seen: dict[str, list] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda module, args, prefix=prefix: seen.setdefault(prefix, []).append(
                (args[0].mean((0, 2, 3)), args[0].transpose(0, 1).flatten(1).var(1))))
    for indices in clients:
        for start in range(0, len(indices), 4):
            images = [cv2.imread(str(data / 'img_dir' / 'train' / f'{i:03d}.png'))
                      for i in indices[start:start + 4]]
            images = (torch.tensor(np.array(images)).permute(0, 3, 1, 2).double() - 128) / 60
            with torch.no_grad():
                model.decode_head(model.backbone(images))
    return {prefix: tuple(torch.stack(values).mean(0).float() for values in zip(*batches))
            for prefix, batches in seen.items()}


def test_recalibrated_statistics_are_those_of_the_averaged_weights(tiny_data, tmp_path):
    averaged = model_weights(train(config(tiny_data, tmp_path / 'average', dict(type='FedAvg'), rounds=1)))
    cfg = config(tiny_data, tmp_path / 'anew', dict(type='FedAvg', batch_norm='recalibrate'), rounds=1)
    runner = train(cfg)
    found = torch.load(tmp_path / 'anew' / 'round_1.pth', weights_only=True)
    assert found['federated']['batch_norm'].startswith('statistics are computed anew with the averaged weights')
    found = found['state_dict']
    federation = runner.train_loop.federation
    cohort = federation.sampler.cohort(5, 0)
    assert len(cohort) == 2
    expected = statistics_by_hand(cfg, averaged, tiny_data,
                                  [federation.partition.clients[client].indices for client in cohort])
    assert len(expected) == 23 and not any('auxiliary' in prefix for prefix in expected)
    for prefix, (mean, variance) in expected.items():
        torch.testing.assert_close(found.pop(f'{prefix}.running_mean'), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.pop(f'{prefix}.running_var'), variance, rtol=1e-4, atol=1e-5)
        assert found.pop(f'{prefix}.num_batches_tracked') == 6
    # all else, the auxiliary head's statistics included, is averaged
    assert_same_bits(found, {name: averaged[name] for name in found})
    for layer in runner.model.modules():
        assert not isinstance(layer, nn.BatchNorm2d) or layer.momentum == 0.1
    assert_same_bits(model_weights(runner), dict(federation.algorithm.broadcast(1).weights))


def test_an_unknown_way_is_refused():
    with pytest.raises(FedSegError, match="batch_norm must be one of average, .*, recalibrate, but is 'none'"):
        FedAvg(batch_norm='none')


def test_recalibration_where_a_clients_last_batch_is_one_image(tiny_data, tmp_path):
    """Three images per client in batches of two; FastSCNN pools to one pixel, as PSPNet and DeepLabV3 do."""
    train(tiny_config(tiny_data, tmp_path, **{
        'federated.algorithm': dict(type='FedAvg', batch_norm='recalibrate'), 'train_cfg.max_rounds': 1}))


class Sent(Hook):

    def before_train(self, runner):
        self.initial, self.updates = model_weights(runner), []

    def after_client(self, runner, update):
        whole = {**update.weights, **update.unshared}
        self.updates.append((update.num_images, {name: tensor.clone() for name, tensor in whole.items()}))


@pytest.mark.parametrize('algorithm', ['FedAdam', 'FedAvgM', 'FedDyn'])
def test_local_layers_are_averaged_by_every_method(tiny_data, tmp_path, algorithm):
    sent = Sent()
    runner = train(tiny_config(tiny_data, tmp_path, **{
        'federated.algorithm': dict(type=algorithm, batch_norm='local'), 'train_cfg.max_rounds': 2}), sent)
    last = sent.updates[-3:]
    name = 'decode_head.convs.0.depthwise_conv.bn.weight'
    mean = np.average([weights[name].numpy() for _, weights in last], axis=0, weights=[number for number, _ in last])
    np.testing.assert_allclose(model_weights(runner)[name].numpy(), mean, rtol=1e-5)
