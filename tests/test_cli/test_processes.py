"""Several processes, each training whole clients, started as a user starts them."""
import json
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT, assert_same_bits, run_processes, run_tool, weights_of, write_config


def torchrun(processes: int, tool: str, *arguments, **environment) -> subprocess.CompletedProcess:
    done = subprocess.run([sys.executable, '-m', 'torch.distributed.run', f'--nproc_per_node={processes}',
                           '--standalone', str(ROOT / 'tools' / f'{tool}.py'), *map(str, arguments), '--launcher',
                           'pytorch'], capture_output=True, text=True, timeout=600,
                          env={**os.environ, 'OMP_NUM_THREADS': '1', **environment})
    return done


def rounds(work_dir) -> list[dict]:
    return [json.loads(line) for path in sorted(work_dir.glob('*/vis_data/rounds.json'))
            for line in path.read_text().splitlines()]


@pytest.mark.parametrize('algorithm', [
    dict(type='FedSeg', start_round=0), dict(type='FedDyn'), dict(type='SCAFFOLD', batch_norm='local'),
    dict(type='FedAvg', batch_norm='recalibrate')])
def test_two_processes_equal_one_up_to_summation_order(tiny_data, tmp_path, algorithm):
    """Three clients for two processes; one client's figures are the same bits in the first round.

    A weight by itself may differ by more than rounding: a difference in the
    last bit that crosses a ReLU or a class's border is carried on.
    """
    configs = {name: write_config(tiny_data, tmp_path / name, **{
        'federated.algorithm': algorithm, 'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 2,
        'train_dataloader.batch_size': 3}) for name in ('one', 'two')}
    assert run_tool('fed_train', configs['one']).returncode == 0
    done = run_processes(2, 'fed_train', configs['two'])
    assert done.returncode == 0, done.stdout + done.stderr
    first, last = ([weights_of(tmp_path / name / f'round_{number}.pth') for name in configs] for number in (1, 2))
    assert last[0].keys() == last[1].keys()  # plain keys, no wrapper's prefix
    for name in first[0]:
        torch.testing.assert_close(first[1][name], first[0][name], rtol=1e-4, atol=1e-5, msg=name)
    one, two, before = (torch.cat([weights[name].double().flatten() for name in last[0]])
                        for weights in (*last, first[0]))
    assert (two - one).norm() < 0.01 * (one - before).norm()
    logs = {name: rounds(tmp_path / name) for name in configs}
    assert len(logs['two']) == 2
    for first, second in zip(logs['one'][0]['clients'], logs['two'][0]['clients'], strict=True):
        assert {**first, 'time': 0} == {**second, 'time': 0}
    assert [line['bytes_up'] for line in logs['one']] == [line['bytes_up'] for line in logs['two']]


def test_one_update_passes_through_two_processes_bit_for_bit(tiny_data, tmp_path):
    """A cohort of one: the second process has nothing to train."""
    configs = {name: write_config(tiny_data, tmp_path / name, **{
        'federated.clients_per_round': 1, 'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 9})
        for name in ('one', 'two')}
    assert run_tool('fed_train', configs['one']).returncode == 0
    done = run_processes(2, 'fed_train', configs['two'])
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_bits(*(weights_of(tmp_path / name / 'round_2.pth') for name in configs))


def test_resume_and_evaluation(tiny_data, tmp_path):
    config = write_config(tiny_data, tmp_path, **{
        'federated.algorithm': dict(type='MOON'), 'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 1})
    assert torchrun(2, 'fed_train', config).returncode == 0
    done = run_processes(2, 'fed_train', config, '--resume', '--cfg-options', 'train_cfg.max_rounds=2')
    assert done.returncode == 0, done.stdout + done.stderr
    figures = []
    for processes in (2, 1):
        arguments = 'test', config, tmp_path / 'round_2.pth', '--work-dir', tmp_path / f'test_{processes}'
        done = run_processes(2, *arguments) if processes == 2 else run_tool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        path = max((tmp_path / f'test_{processes}').glob('*/*.json'))
        figures.append({key: value for key, value in json.loads(path.read_text()).items() if 'time' not in key})
    assert figures[0] == figures[1] and 'mIoU' in figures[0]


def test_a_launcher_without_processes_says_how_to_start_them(tiny_data, tmp_path):
    done = run_tool('fed_train', write_config(tiny_data, tmp_path), '--launcher', 'pytorch')
    assert done.returncode == 1 and 'torchrun --nproc_per_node=2' in done.stderr and 'Traceback' not in done.stderr


HOOK = '''\
import os
import signal

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class SecondProcessHook(Hook):
    """The second process is asked to stop, in the middle of a round or in an evaluation."""

    def __init__(self, place):
        self.place = place

    def _send(self, runner, place):
        if place == self.place and runner.epoch == 2 and get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def before_client(self, runner, client):
        self._send(runner, 'before_client')

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._send(runner, 'after_val_iter')
'''


@pytest.mark.parametrize('place', ['before_client', 'after_val_iter'])
def test_processes_stop_together_and_lose_no_finished_round(tiny_data, tmp_path, monkeypatch, place):
    """One of them gets the signal; the other waits for nobody."""
    (tmp_path / 'second_process_hook.py').write_text(HOOK)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    changes = {'train_cfg.max_rounds': 3, 'train_cfg.val_interval': 2, 'default_hooks.checkpoint.interval': 10,
               'default_hooks.checkpoint.save_best': None, 'federated.clients_per_round': 4,
               'federated.algorithm': dict(type='FedDyn'), 'federated.local_epochs': 1}
    whole = write_config(tiny_data, tmp_path / 'whole', **changes)
    assert run_processes(2, 'fed_train', whole).returncode == 0
    parts = write_config(tiny_data, tmp_path / 'parts', **changes, **{
        'custom_imports.imports': ['fedseg_mm', 'second_process_hook'],
        'custom_hooks': [dict(type='SecondProcessHook', place=place)]})
    done = run_processes(2, 'fed_train', parts)
    assert done.returncode == 143, done.stdout + done.stderr
    assert done.stderr.count('fed_train: stopped; --resume goes on from round_2.pth with round 3') == 2
    assert [path.name for path in (tmp_path / 'parts').glob('round_*.pth')] == ['round_2.pth']
    done = run_processes(2, 'fed_train', write_config(tiny_data, tmp_path / 'parts', **changes), '--resume')
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_bits(*(weights_of(tmp_path / name / 'round_3.pth') for name in ('whole', 'parts')))
