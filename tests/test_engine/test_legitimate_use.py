"""Runs that people have every right to: other starts, other heads, other hooks."""
import json
import os
import re
import subprocess
import sys
import types

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, LOOPS, VISBACKENDS
from mmengine.visualization import BaseVisBackend
from mmseg.registry import MODELS
from torch import nn

from fedseg_mm import FedSegError
from fedseg_mm.algorithms import FedAvg
from fedseg_mm.cli.train import main
from fedseg_mm.engine import FederatedTrainLoop
from fedseg_mm.registry import ALGORITHMS
from tests.conftest import ROOT, assert_same_bits, tiny_config, weights_of, write_config
from tests.test_engine.test_federated_loop import model_weights, train


# --- loaders without workers ------------------------------------------------
@pytest.mark.parametrize('options', [
    dict(persistent_workers=True), dict(prefetch_factor=2), dict(multiprocessing_context='fork'), dict(timeout=5)])
def test_worker_options_without_workers(tiny_data, tmp_path, options):
    changes = {f'{mode}_dataloader.{name}': value for mode in ('train', 'val') for name, value in options.items()}
    main([write_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 1, **changes})])
    assert (tmp_path / 'round_1.pth').exists()


def test_spawned_workers_of_the_package_started_as_a_module(tiny_data, tmp_path):
    """They import MMSegmentation first, which under mmcv-lite needs what this package puts in mmcv's place."""
    config = write_config(tiny_data, tmp_path, env_cfg=dict(mp_cfg=dict(mp_start_method='spawn')), **{
        'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 1, 'val_dataloader.num_workers': 1})
    done = subprocess.run([sys.executable, '-m', 'fedseg_mm', 'train', config], capture_output=True, text=True,
                          cwd=tmp_path, timeout=300, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert 'mIoU' in done.stdout


# --- types as classes -------------------------------------------------------
@LOOPS.register_module(force=True)
class OwnLoop(FederatedTrainLoop):
    """A third party's loop."""


@pytest.mark.parametrize('loop', ['OwnLoop', 'mmengine.FederatedTrainLoop'])
def test_the_loop_by_other_names(tiny_data, tmp_path, loop):
    runner = train(tiny_config(tiny_data, tmp_path, **{
        'train_cfg.type': loop, 'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9}))
    assert isinstance(runner.train_loop, OwnLoop if 'Own' in str(loop) else FederatedTrainLoop)


def test_a_pure_python_config_and_federated_by_classes(tiny_data, tmp_path):
    cfg = tiny_config(tiny_data, tmp_path / 'names', **{'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9})
    cfg.dump(tmp_path / 'names.py')
    text = (tmp_path / 'names.py').read_text().replace("type='FederatedTrainLoop'", 'type=FederatedTrainLoop').replace(
        "type='ClassPartitioner'", 'type=ClassPartitioner').replace("type='CheckpointHook'", 'type=CheckpointHook')
    text = text.replace("type='OptimWrapper'", 'type=OptimWrapper')
    text = text.replace(str(tmp_path / 'names'), str(tmp_path / 'py'))
    assert 'type=FederatedTrainLoop' in text and 'type=ClassPartitioner' in text
    (tmp_path / 'classes.py').write_text(
        'from mmengine.hooks import CheckpointHook\nfrom mmengine.optim import OptimWrapper\n'
        'from fedseg_mm.datasets import ClassPartitioner\nfrom fedseg_mm.engine import FederatedTrainLoop\n' + text)
    for name in ('names', 'classes'):
        main([str(tmp_path / f'{name}.py')])
    assert_same_bits(weights_of(tmp_path / 'names' / 'round_1.pth'), weights_of(tmp_path / 'py' / 'round_1.pth'))


def test_federating_a_config_of_classes(tmp_path):
    from mmengine.dataset import InfiniteSampler, RepeatDataset
    from mmengine.optim.scheduler import PolyLR
    from mmseg.models.losses import CrossEntropyLoss

    from fedseg_mm.config import federate_plain
    cfg = Config(dict(
        model=dict(decode_head=dict(type='FCNHead', num_classes=3, loss_decode=dict(type=CrossEntropyLoss))),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=1500),
        train_dataloader=dict(dataset=dict(type=RepeatDataset, dataset=dict(type='A')), sampler=dict(
            type=InfiniteSampler)), param_scheduler=[dict(type=PolyLR, end=1500, by_epoch=False)]))
    federate_plain(cfg, Config.fromfile(ROOT / 'configs' / '_base_' / 'federated' / 'fedseg_noniid1.py'))
    assert cfg.model.decode_head.loss_decode.type == 'BackCELoss'
    assert cfg.train_dataloader == dict(dataset=dict(type='A'))


# --- heads without a classifier ---------------------------------------------
@MODELS.register_module(force=True)
class NoClassifierHead(MODELS.get('FCNHead')):
    """Its classifier has another name, and is more than a convolution."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.last = nn.Sequential(nn.Conv2d(self.channels, self.num_classes, 1), nn.Identity())
        del self.conv_seg

    def cls_seg(self, feat):
        return self.last(feat)

    def init_weights(self):
        pass


@ALGORITHMS.register_module(force=True)
class NearWeights(FedAvg):
    """A method whose term is about weights alone."""

    def local_loss(self, context):
        name, parameter = next(iter(context.model.named_parameters()))
        return dict(loss_near=(parameter - context.broadcast.weights[name]).square().sum())


@ALGORITHMS.register_module(force=True)
class NearEmbeddings(FedAvg):

    def local_loss(self, context):
        return dict(loss_near=context.embeddings.mean())


NO_CLASSIFIER = {'model.decode_head.type': 'NoClassifierHead', 'model.decode_head.num_convs': 1,
                 'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9}


@pytest.mark.parametrize('algorithm, sentence', [
    ('NearWeights', None), ('NearEmbeddings', 'NoClassifierHead does not classify pixel embeddings'),
    ('MOON', 'NoClassifierHead does not classify pixel embeddings'), ('FedNTD', 'has no conv_seg'),
    ('FedSeg', 'has no conv_seg')])
def test_a_head_without_a_classifier(tiny_data, tmp_path, algorithm, sentence):
    cfg = tiny_config(tiny_data, tmp_path, **NO_CLASSIFIER, **{'federated.algorithm': dict(type=algorithm)})
    if sentence is None:
        train(cfg)
        line = json.loads(next(tmp_path.glob('*/vis_data/rounds.json')).read_text())
        assert all('loss_near' in client for client in line['clients'])
    else:
        with pytest.raises(FedSegError, match=sentence):
            train(cfg)


# --- parameters that a hook thaws -------------------------------------------
@HOOKS.register_module(force=True)
class Thaw(Hook):
    """The backbone learns from the second round on."""

    def before_train(self, runner):
        runner.model.backbone.requires_grad_(runner.epoch > 0)

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            runner.model.backbone.requires_grad_(True)


@pytest.mark.parametrize('algorithm, processors', [
    ('FedAvg', []), ('FedProx', []), ('FedSeg', []), ('FedAvg', [dict(type='TopKCompression', ratio=0.5)])])
def test_the_trained_set_follows_a_hook(tiny_data, tmp_path, algorithm, processors):
    seen = []

    class Look(Hook):
        def after_train_epoch(self, runner):
            trained = runner.train_loop.federation.algorithm.trained
            seen.append((any(name.startswith('backbone') for name in trained), model_weights(runner)))

    algorithm = dict(type=algorithm, **(dict(embedding_channels=8) if algorithm == 'FedSeg' else {}))
    train(tiny_config(tiny_data, tmp_path, **{
        'federated.algorithm': algorithm, 'federated.processors': processors, 'train_cfg.max_rounds': 2,
        'train_cfg.val_interval': 9, 'custom_hooks': [dict(type='Thaw', priority='VERY_HIGH')]}), Look())
    (first, before), (second, after) = seen
    assert (first, second) == (False, True)
    moved = [name for name, tensor in before.items() if name.startswith('backbone') and 'weight' in name
             and not torch.equal(tensor, after[name])]
    assert len(moved) > 10


@pytest.mark.parametrize('algorithm', ['FedAdam', 'FedAvgM', 'FedYogi', 'SCAFFOLD', 'FedDyn'])
def test_methods_that_keep_state_say_so(tiny_data, tmp_path, algorithm):
    with pytest.raises(FedSegError, match=rf'backbone.* were frozen .*, but {algorithm} keeps state only for what was'):
        train(tiny_config(tiny_data, tmp_path, **{
            'federated.algorithm': dict(type=algorithm), 'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 9,
            'custom_hooks': [dict(type='Thaw', priority='VERY_HIGH')]}))
    assert (tmp_path / 'round_1.pth').exists()


# --- one axis ---------------------------------------------------------------
@VISBACKENDS.register_module(force=True)
class Recorder(BaseVisBackend):
    calls: list = []

    @property
    def experiment(self):
        return self

    def _init_env(self):
        pass

    def add_scalar(self, name, value, step=0, **kwargs):
        self.calls.append((step, [name]))

    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs):
        self.calls.append((step, list(scalar_dict)))


def rounds_of(calls) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for step, names in calls:
        for name in names:
            found.setdefault(name, []).append(step)
    return found


CURVES = {'train_cfg.max_rounds': 3, 'train_cfg.val_interval': 1}


def check_rounds(found) -> None:
    for name in ('loss', 'lr', 'mIoU', 'round/images'):
        assert found[name] == [1, 2, 3], name
    assert {step for steps in found.values() for step in steps} == {1, 2, 3}


def test_a_backend_gets_rounds_as_steps(tiny_data, tmp_path):
    Recorder.calls = []
    train(tiny_config(tiny_data, tmp_path, **CURVES, **{'visualizer.vis_backends': [dict(type='Recorder')]}))
    check_rounds(rounds_of(Recorder.calls))


def test_weights_and_biases_gets_rounds_as_steps(tiny_data, tmp_path, monkeypatch):
    """MMEngine's backend with a package that only records; steps never go back, which W&B would drop."""
    calls = []
    wandb = types.ModuleType('wandb')
    wandb.log = lambda data, step=None, commit=None: calls.append((step, list(data)))
    wandb.init = lambda **kwargs: None
    wandb.join = lambda: None
    wandb.config = types.SimpleNamespace(update=lambda *args, **kwargs: None)
    wandb.run = types.SimpleNamespace(log_code=lambda **kwargs: None)
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    train(tiny_config(tiny_data, tmp_path, **CURVES, **{'visualizer.vis_backends': [dict(type='WandbVisBackend')]}))
    check_rounds(rounds_of(calls))
    steps = [step for step, _ in calls]
    assert steps == sorted(steps)


def test_mlflow_gets_rounds_as_steps_and_names_that_it_allows(tiny_data, tmp_path, monkeypatch):
    """MMEngine's backend with a package that only records, and refuses the names that MLflow refuses."""
    calls: list = []

    def log_metrics(metrics, step=None):
        assert all(re.fullmatch(r'[/\w.\- ]+', name) for name in metrics), metrics
        calls.append((step, list(metrics)))

    mlflow = types.ModuleType('mlflow')
    mlflow.log_metrics = log_metrics
    mlflow.log_metric = lambda name, value, step=None: log_metrics({name: value}, step)
    mlflow.get_experiment_by_name = lambda name: name
    for name in ('set_tracking_uri', 'set_experiment', 'log_params', 'log_text', 'log_artifact', 'end_run'):
        setattr(mlflow, name, lambda *args: None)
    monkeypatch.setitem(sys.modules, 'mlflow', mlflow)
    images = [f'img_dir/train/{i:03d}.png' for i in range(24)]
    (tmp_path / 'silos.json').write_text(json.dumps(dict(clients=[
        dict(client="St Mary's", images=images[:12]), dict(client='Süd (old)', images=images[12:])])))
    train(tiny_config(tiny_data, tmp_path / 'run', **CURVES, **{
        'visualizer.vis_backends': [dict(type='MLflowVisBackend')], 'federated.clients_per_round': 2,
        'federated.partitioner': dict(_delete_=True, type='ManifestPartitioner', manifest=str(
            tmp_path / 'silos.json'))}))
    found = rounds_of(calls)
    check_rounds(found)
    assert found['client/St Mary_s/loss'] == found['client/Süd _old_/loss'] == [1, 2, 3]
