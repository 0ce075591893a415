"""The demo, in short here and in full as the documentation has it, in an environment made from nothing."""
import re
import subprocess
import sys

import cv2
import pytest

from tests.conftest import ROOT, run_tool

FIGURES = r'FedAvg with (plain cross-entropy|BackCE) *\| *([\d.]+) *\| *([\d.]+)'


def test_demo_in_short(tmp_path):
    done = run_tool('demo', '--work-dir', tmp_path, '--rounds', 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row[0] for row in re.findall(FIGURES, done.stdout)] == ['plain cross-entropy', 'BackCE']
    assert cv2.imread(str(tmp_path / 'demo.png')).shape[1] > 1000
    for title in ('Picture', 'Checkpoints', 'Logs'):
        (line, ) = re.findall(rf'^{title} +(.+)$', done.stdout, re.MULTILINE)
        for path in line.split():
            assert (tmp_path / path).is_file()


def test_a_failing_demo_says_where_to_look(tmp_path):
    (tmp_path / 'ce').mkdir()
    (tmp_path / 'ce' / 'round_1.pth').mkdir()  # cannot be written
    done = run_tool('demo', '--work-dir', tmp_path, '--rounds', 1)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert re.search(r'demo: training with plain cross-entropy failed: .*\(all of its output is in .*train.log\)',
                     done.stderr)


def plain_commands() -> list[str]:
    """The documentation's way without make."""
    page = (ROOT / 'docs' / 'quick_start.md').read_text()
    block = page.split('## Without make\n')[1].split('```bash\n')[1].split('```')[0]
    return block.splitlines()


def test_the_plain_commands_are_those_of_make():
    makefile = (ROOT / 'Makefile').read_text()
    environment, torch, install, demo, tests = plain_commands()
    assert environment == 'python3 -m venv .venv && . .venv/bin/activate'
    assert torch == 'pip install torch==2.13.0' and 'torch==2.13.0' in makefile
    assert install == "pip install -e '.[lite,tests]' -c requirements/tested.txt"
    assert '-c requirements/tested.txt' in makefile and "-e '.[lite,tests]'" in makefile
    assert demo == 'python tools/demo.py' and demo.split()[1] in makefile
    assert tests == 'python -m pytest' and '-m pytest' in makefile


@pytest.mark.slow
def test_the_plain_commands_in_a_fresh_clone(tmp_path):
    """As typed, but for the whole test suite; BackCE must be at least 10 mIoU ahead."""
    subprocess.run(['git', 'clone', '--quiet', str(ROOT), str(tmp_path / 'clone')], check=True)
    *commands, tests = plain_commands()
    commands = [command.replace('python3 ', f'{sys.executable} ') for command in commands]
    script = '\n'.join(['set -e', *commands, f'{tests} tests/test_datasets/test_partition.py'])
    done = subprocess.run(['bash', '-c', script], cwd=tmp_path / 'clone', capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {name: float(miou) for name, miou, _ in re.findall(FIGURES, done.stdout)}
    assert rows['BackCE'] >= rows['plain cross-entropy'] + 10, rows
