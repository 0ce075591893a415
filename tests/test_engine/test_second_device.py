"""Rounds of every method with a model on a second device: no tensors are mixed, and no step waits for the device."""
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import MODELS
from torch import nn

from fedseg_mm.config import federate
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.samplers import UniformSampler
from tests.conftest import tiny_config
from tests.second_device import DEVICE, SecondDevice

#: What a method needs beside its defaults, so that all that it does is done in both rounds.
SETTINGS = {'FedSeg': dict(start_round=0, embedding_channels=8), 'PseudoLabels': dict(start_round=0)}
RUNS = {**{name: {'federated.algorithm': dict(type=name, **SETTINGS.get(name, {}))} for name in ALGORITHMS.module_dict},
        'mean prototypes': {'federated.algorithm': dict(
            type='FedSeg', prototypes='mean', pseudo_anchors='unannotated', own_pseudo_labels=False,
            **SETTINGS['FedSeg'])},
        'recalibrated batch normalisation': {'federated.algorithm': dict(type='FedAvg', batch_norm='recalibrate')},
        'BackCE with weights and balance': {'model.decode_head.loss_decode': dict(
            class_weight=[1., 2., 3., 4.], balance_power=0.5, void_as_background=True)},
        'cross-entropy': {'model.decode_head.loss_decode': dict(
            _delete_=True, type='CrossEntropyLoss', avg_non_ignore=False)},
        'accumulated gradients': {'optim_wrapper.accumulative_counts': 2},
        'Adam': {'optim_wrapper.optimizer': dict(_delete_=True, type='AdamW', lr=1e-3)}}


@MODELS.register_module()
class ThreeConvolutions(nn.Sequential):
    """A backbone of few operations, which on meta tensors take long."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))

    def forward(self, x):
        return [super().forward(x)]


class OnSecondDevice(Hook):
    """Moves the run there when all is built on the CPU, and looks at every step and client."""
    priority = 'VERY_LOW'

    def __init__(self):
        self.device = SecondDevice()
        self.in_steps, self.in_rounds = [], []
        self.steps = self.clients = 0

    def before_train(self, runner):
        model = runner.model.to(DEVICE)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.cfg.optim_wrapper)
        step = model.train_step

        def watched(*args, **kwargs):
            self.steps += 1
            with self.device.watch(self.in_steps):
                return step(*args, **kwargs)

        model.train_step = watched
        self.device.__enter__()

    def before_round(self, runner, **kwargs):
        self.started = len(self.device.waits)

    def after_client(self, runner, update):
        self.clients += 1
        assert all(tensor.is_meta for tensor in update.weights.values())

    def after_round(self, runner):
        self.in_rounds += self.device.waits[self.started:]


@pytest.fixture
def run(tiny_data, tmp_path, monkeypatch):
    """Two rounds of one client, which in the second has what it kept."""
    monkeypatch.setattr(UniformSampler, 'cohort', lambda self, seed, round: [0])
    autocast = torch.autocast  # it knows real devices only
    monkeypatch.setattr(torch, 'autocast', lambda device, *args, **kwargs: autocast(
        'cpu' if device == DEVICE.type else device, *args, **kwargs))

    def run(**changes) -> OnSecondDevice:
        cfg = tiny_config(tiny_data, tmp_path, **{
            'train_cfg.max_rounds': 2, 'federated.partitioner.num_clients': 4, 'federated.clients_per_round': 1,
            'federated.local_epochs': 1, 'train_dataloader.batch_size': 6,
            'model.backbone': dict(_delete_=True, type='ThreeConvolutions'),
            'model.data_preprocessor.bgr_to_rgb': True, **changes})
        cfg.param_scheduler = cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = cfg.default_hooks.checkpoint = None
        federate(cfg)
        runner, hook = Runner.from_cfg(cfg), OnSecondDevice()
        runner.register_hook(hook)
        with hook.device._stack:
            runner.train()
        return hook

    return run


@pytest.mark.parametrize('name', list(RUNS))
def test_no_devices_are_mixed_and_no_step_waits(name, run):
    hook = run(**RUNS[name])
    assert hook.steps >= hook.clients == 2 and hook.device.operations > 100 * hook.steps
    assert hook.device.sent >= 2 * 6 * hook.steps  # images and labels
    assert not hook.in_steps
    # beside its steps, the host waits once per client, for its metrics; and for the number of prototypes
    if 'recalibrated' in name:  # torch's layers read how many batches they have seen
        hook.in_rounds = [wait for wait in hook.in_rounds if 'scalar' not in wait]
    others = [wait for wait in hook.in_rounds if 'nonzero' not in wait and '_unique2' not in wait]
    assert len(others) == 2 and all('from the device' in wait for wait in others), others
    assert len(hook.in_rounds) - len(others) == {'FedSeg': 2, 'mean prototypes': 4}.get(name, 0)


# --- the spy sees what it is for --------------------------------------------
@pytest.mark.parametrize('mixes', [
    lambda there, here: there + here, lambda there, here: torch.cat([there, here]),
    lambda there, here: nn.functional.conv2d(there[None, None], here[None, None]),
    lambda there, here: there[here.long()], lambda there, here: torch._foreach_add([there], [here])])
def test_mixed_devices_are_an_error(mixes):
    there, here = torch.ones(2, 2, device=DEVICE), torch.ones(2, 2)
    with SecondDevice(), pytest.raises((AssertionError, RuntimeError, IndexError)):
        mixes(there, here)


@pytest.mark.parametrize('waits', [
    lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: float(x.sum()), lambda x: x.nonzero(),
    lambda x: x[x[:, 0] > 0], lambda x: x.cpu(), lambda x: x.tolist(), lambda x: torch.ones(3).to(DEVICE),
    lambda x: x[[1, 0]], lambda x: x[:, [0]], lambda x: x.new_tensor([1., 2.]), lambda x: x.unique(),
    lambda x: torch.tensor([1, 2], device=DEVICE), lambda x: x.copy_(torch.ones(2, 2)),
    lambda x: x[torch.zeros(2, dtype=torch.bool, device=DEVICE)]])
def test_what_waits_is_noted(waits):
    x = torch.ones(2, 2, device=DEVICE)
    with SecondDevice() as device:
        waits(x)
    assert len(device.waits) == 1


@pytest.mark.parametrize('goes_on', [
    lambda x: x * 2.0, lambda x: torch.where(x > 0, x, 1), lambda x: x[:, 0], lambda x: x.flip(0),
    lambda x: torch.ones(3).to(DEVICE, non_blocking=True), lambda x: torch.full((3, ), 2.0, device=DEVICE),
    lambda x: x.copy_(torch.ones(2, 2), non_blocking=True), lambda x: x.masked_fill_(x > 0, 1)])
def test_what_goes_on_is_not(goes_on):
    x = torch.ones(2, 2, device=DEVICE)
    with SecondDevice() as device:
        goes_on(x)
    assert not device.waits
