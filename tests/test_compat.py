import importlib.metadata
import pickle
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

import fedseg_mm.compat as compat
from fedseg_mm import FedSegError

MMCV_IS_LITE = not any(d.metadata['Name'] == 'mmcv' for d in importlib.metadata.distributions())


class RunsCode:
    """Pickles into a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path):
    open(path, 'w').close()


def zoo_checkpoint() -> dict:
    """What MMEngine puts into a checkpoint: history, numpy scalars and arrays."""
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    return dict(
        state_dict=OrderedDict(w=torch.ones(2)),
        meta=dict(epoch=1, iter=2, seed=np.int64(3), dataset_meta=dict(palette=np.zeros((2, 3)))),
        message_hub=dict(log_scalars=OrderedDict({'train/loss': history}),
                         runtime_info=OrderedDict(best_score=np.float64(0.5), best=np.float32(0.25)),
                         resumed_keys=OrderedDict({'train/loss': True})))


def test_checkpoints_of_mmengine_load(tmp_path):
    torch.save(zoo_checkpoint(), tmp_path / 'zoo.pth')
    with pytest.raises(pickle.UnpicklingError):  # the reason for compat
        torch.load(tmp_path / 'zoo.pth', weights_only=True)
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'zoo.pth'), 'cpu')
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert history.mean() == 1.5 and history.statistics('max') == 2
    assert loaded['meta']['seed'] == 3 and loaded['message_hub']['runtime_info']['best_score'] == 0.5


def test_checkpoints_of_numpy_1_load(tmp_path):
    """They name numpy.core, which numpy 2 calls numpy._core."""
    torch.save(zoo_checkpoint(), tmp_path / 'zoo.pth', pickle_protocol=2, _use_new_zipfile_serialization=False)
    content = (tmp_path / 'zoo.pth').read_bytes()
    assert b'numpy._core.multiarray' in content
    (tmp_path / 'old.pth').write_bytes(content.replace(b'numpy._core.multiarray', b'numpy.core.multiarray'))
    assert compat.load_weights_only(tmp_path / 'old.pth')['meta']['seed'] == 3


@pytest.mark.parametrize('attack', [
    lambda mark: RunsCode(touch, mark),
    lambda mark: RunsCode(exec, f'open({mark!r}, "w")'),
    lambda mark: RunsCode(getattr, HistoryBuffer, '__init__'),
    lambda mark: RunsCode(getattr, np.ndarray, 'tofile'),
])
@pytest.mark.parametrize('load', [
    lambda path: CheckpointLoader.load_checkpoint(str(path), 'cpu'),
    lambda path: compat._load_url(path.as_uri()),
])
def test_checkpoint_that_carries_code_is_refused_and_does_not_run(tmp_path, attack, load, monkeypatch):
    mark = tmp_path / 'it_ran'
    path = tmp_path / 'attack.pth'
    torch.save(dict(state_dict={}, extra=attack(str(mark))), path)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    with pytest.raises(FedSegError, match='code') as error:
        load(path)
    assert not mark.exists() and '\n' not in str(error.value)


def test_url_off_line_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    with pytest.raises(FedSegError, match='none.pth cannot be downloaded .*: put the file into'):
        compat._load_url((tmp_path / 'none.pth').as_uri())


def test_damaged_and_missing_checkpoints_are_one_sentence(tmp_path):
    torch.save(zoo_checkpoint(), tmp_path / 'zoo.pth')
    content = (tmp_path / 'zoo.pth').read_bytes()
    for name, spoiled in (('cut.pth', content[:len(content) // 2]), ('empty.pth', b''), ('text.pth', b'hello')):
        (tmp_path / name).write_bytes(spoiled)
        with pytest.raises(FedSegError, match=f'{name} cannot be read'):
            compat.load_weights_only(tmp_path / name)
    with pytest.raises(FedSegError, match='there is no checkpoint'):
        compat.load_weights_only(tmp_path / 'none.pth')


def test_history_becomes_plain_and_comes_back(tmp_path):
    checkpoint = zoo_checkpoint()
    checkpoint['param_schedulers'] = [dict(anneal=np.mean, phases=[dict(end=np.float64(3))], last_step=2)]
    compat.to_plain(checkpoint)
    torch.save(checkpoint, tmp_path / 'ours.pth')
    loaded = torch.load(tmp_path / 'ours.pth', weights_only=True)  # no help needed
    compat.restore_history(loaded)
    assert loaded['param_schedulers'] == [dict(phases=[dict(end=3.0)], last_step=2)]
    assert loaded['meta']['dataset_meta']['palette'] == [[0, 0, 0], [0, 0, 0]]
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert history.data[0].tolist() == [1, 2] and history.max_length == 1000000
    history.update(4.0)
    assert history.current() == 4 and history.mean() == pytest.approx(7 / 3)


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
