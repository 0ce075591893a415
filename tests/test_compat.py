import importlib.metadata
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

import fedseg_mm.compat as compat
from fedseg_mm import FedSegError

MMCV_IS_LITE = not any(d.metadata['Name'] == 'mmcv' for d in importlib.metadata.distributions())


@pytest.mark.skipif(not MMCV_IS_LITE, reason='full mmcv has the compiled ops')
def test_missing_op_names_itself_and_the_remedy():
    from mmcv.ops import (
        CrissCrossAttention,  # noqa: F401  the Python half imports
        ModulatedDeformConv2d,
    )
    conv = ModulatedDeformConv2d(4, 4, 3)
    with pytest.raises(FedSegError, match='modulated_deform_conv.* not part of mmcv-lite.*pip install mmcv'):
        conv(torch.rand(1, 4, 8, 8), torch.rand(1, 18, 6, 6), torch.rand(1, 9, 6, 6))


def test_base_configs_of_mmseg_are_found_without_pkg_resources():
    code = ('import sys, importlib.util\n'
            'find = importlib.util.find_spec\n'
            'importlib.util.find_spec = lambda name, *a: None if name == "pkg_resources" else find(name, *a)\n'
            'sys.modules["pkg_resources"] = None\n'
            'import fedseg_mm\n'
            'from mmengine.config import Config\n'
            'cfg = Config.fromfile("configs/_base_/models/deeplabv3_r50-d8.py")\n'
            'print(cfg.model.backbone.type)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == 'ResNetV1c'


def test_installed_path_equals_the_module():
    import mmseg
    assert compat._get_installed_path('mmsegmentation') == mmseg.__path__[0]
    assert compat._is_installed('mmsegmentation') and compat._is_installed('mmseg')
    assert not compat._is_installed('no_such_package')
    assert Config.fromfile('configs/_base_/models/deeplabv3_r50-d8.py').model.decode_head.type == 'ASPPHead'


def test_missing_mmcv_is_one_sentence():
    code = ('import importlib.util\n'
            'find = importlib.util.find_spec\n'
            'importlib.util.find_spec = lambda name, *a: None if name.startswith("mmcv") else find(name, *a)\n'
            'import sys, runpy\n'
            'sys.argv = ["fed_train.py", "config.py"]\n'
            'runpy.run_path("tools/fed_train.py", run_name="__main__")')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ''
    assert done.stderr.startswith('fed_train: fedseg_mm needs mmcv-lite or mmcv') and done.stderr.count('\n') == 1
