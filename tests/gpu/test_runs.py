"""Every method through the tools, in float32 and with --amp: two rounds, evaluation, and a third after --resume."""
import json
import math
import re

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from fedseg_mm.config import federate
from fedseg_mm.registry import ALGORITHMS
from tests.conftest import run_processes, run_tool, tiny_config, weights_of, write_config

SETTINGS = {'FedSeg': dict(start_round=0, embedding_channels=8, threshold=0.3), 'PseudoLabels': dict(start_round=0)}


def changes(name: str) -> dict:
    return {'federated.algorithm': dict(type=name, **SETTINGS.get(name, {})), 'train_cfg.max_rounds': 2,
            'train_cfg.val_interval': 2, 'model.data_preprocessor.bgr_to_rgb': True,
            'train_dataloader.num_workers': 1}


def figures(work_dir) -> list[dict]:
    """What the run has logged, rounds and evaluations."""
    file = max(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime)
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize('options', [[], ['--amp']], ids=['float32', 'amp'])
@pytest.mark.parametrize('name', list(ALGORITHMS.module_dict))
def test_rounds_evaluation_and_resume(name, options, tiny_data, tmp_path, device):
    config = write_config(tiny_data, tmp_path, **changes(name))
    done = run_tool('fed_train', config, *options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert ('Mixed precision needs a GPU' in done.stdout + done.stderr) == (bool(options) and device.type == 'cpu')
    logged = figures(tmp_path)
    losses = [line['loss'] for line in logged if 'loss' in line]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    assert [line for line in logged if 'mIoU' in line]
    again = run_tool('fed_train', config, *options, '--resume', '--cfg-options', 'train_cfg.max_rounds=3')
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-2000:]
    first, second = (weights_of(tmp_path / f'round_{number}.pth') for number in (2, 3))
    assert all(tensor.isfinite().all() for tensor in second.values() if tensor.is_floating_point())
    assert any(not torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize('name', ['FedAvg', 'FedSeg'])
def test_two_processes_on_one_device(name, tiny_data, tmp_path, device):
    weights = []
    for folder, run in (('one', run_tool), ('two', lambda *arguments: run_processes(2, *arguments))):
        done = run('fed_train', write_config(tiny_data, tmp_path / folder, **changes(name)))
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        weights.append(weights_of(tmp_path / folder / 'round_2.pth'))
    for key, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][key], tensor, rtol=5e-2, atol=5e-2, msg=key)


class NoWaits(Hook):
    """Has CUDA raise where the host waits for it in a step."""
    steps = 0

    def before_train(self, runner):
        step = runner.model.train_step

        def watched(*args, **kwargs):
            self.steps += 1
            if self.steps > 2:  # libraries start up, kernels are compiled
                torch.cuda.set_sync_debug_mode('error')
            try:
                return step(*args, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode('default')

        runner.model.train_step = watched


@pytest.mark.parametrize('name', list(ALGORITHMS.module_dict))
def test_no_step_waits_for_the_device(name, tiny_data, tmp_path, cuda):
    cfg = tiny_config(tiny_data, tmp_path, **changes(name))
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = cfg.default_hooks.checkpoint = None
    federate(cfg)
    cfg.experiment_name = re.sub(r'\W', '_', f'sync_{name}')
    runner, hook = Runner.from_cfg(cfg), NoWaits()
    runner.register_hook(hook)
    runner.train()
    assert hook.steps > 4
