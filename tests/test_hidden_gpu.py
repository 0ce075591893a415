"""The tests are of the CPU, also on a machine with a GPU, unless ``-m`` asks for those that need one."""
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT, asks_for_gpu

#: A machine with a GPU, as far as torch tells: it looks at the environment when it is first asked.
FAKE = """
import os
import torch

torch.cuda.is_available = lambda: os.environ.get('CUDA_VISIBLE_DEVICES') != ''
"""
TESTS = """
import os, subprocess, sys
import pytest, torch

def test_plain():
    seen = subprocess.run([sys.executable, '-c', 'import os; print(os.environ.get("CUDA_VISIBLE_DEVICES"))'],
                          capture_output=True, text=True).stdout.strip()
    print('SEEN', torch.cuda.is_available(), seen)

@pytest.mark.gpu
def test_with_gpu():
    print('SEEN', torch.cuda.is_available())
"""


@pytest.mark.parametrize('expression, asks', [
    ('not slow and not gpu', False), ('', False), ('slow', False), ('not slow', False), ('gpu', True),
    ('gpu or slow', True), ('gpu and not slow', True), ('not gpu', False)])
def test_what_asks_for_a_gpu(expression, asks):
    assert asks_for_gpu(expression) == asks


@pytest.mark.parametrize('options, seen', [
    ([], ['False ']), pytest.param(['-m', 'gpu'], ['True'], marks=pytest.mark.slow)])
def test_a_gpu_is_there_for_tests_that_ask_for_it_alone(options, seen, tmp_path):
    (tmp_path / 'fake_gpu.py').write_text(FAKE)
    (tmp_path / 'test_seen.py').write_text(TESTS)
    environment = {name: value for name, value in os.environ.items() if name != 'CUDA_VISIBLE_DEVICES'}
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-s', '-n', '0', '-p', 'fake_gpu', '-p', 'tests.conftest', *options,
         '-c', str(ROOT / 'pyproject.toml'), '--rootdir', str(tmp_path), str(tmp_path / 'test_seen.py')],
        capture_output=True, text=True, cwd=ROOT, env={**environment, 'PYTHONPATH': f'{tmp_path}:{ROOT}'})
    lines = [line.split('SEEN ')[1] for line in done.stdout.splitlines() if 'SEEN ' in line]
    assert lines == seen, done.stdout + done.stderr
