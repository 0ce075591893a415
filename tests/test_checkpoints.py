import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

import fedseg_mm.checkpoints as checkpoints
from fedseg_mm import FedSegError


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
    with pytest.raises(pickle.UnpicklingError):  # the reason for all this
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
    assert checkpoints.load_weights_only(tmp_path / 'old.pth')['meta']['seed'] == 3


@pytest.mark.parametrize('attack', [
    lambda mark: RunsCode(touch, mark),
    lambda mark: RunsCode(exec, f'open({mark!r}, "w")'),
    lambda mark: RunsCode(getattr, HistoryBuffer, '__init__'),
    lambda mark: RunsCode(getattr, np.ndarray, 'tofile'),
])
@pytest.mark.parametrize('load', [
    lambda path: CheckpointLoader.load_checkpoint(str(path), 'cpu'),
    lambda path: checkpoints._load_url(path.as_uri()),
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
        checkpoints._load_url((tmp_path / 'none.pth').as_uri())


def test_damaged_and_missing_checkpoints_are_one_sentence(tmp_path):
    torch.save(zoo_checkpoint(), tmp_path / 'zoo.pth')
    content = (tmp_path / 'zoo.pth').read_bytes()
    for name, spoiled in (('cut.pth', content[:len(content) // 2]), ('empty.pth', b''), ('text.pth', b'hello')):
        (tmp_path / name).write_bytes(spoiled)
        with pytest.raises(FedSegError, match=f'{name} cannot be read'):
            checkpoints.load_weights_only(tmp_path / name)
    with pytest.raises(FedSegError, match='there is no checkpoint'):
        checkpoints.load_weights_only(tmp_path / 'none.pth')


def test_history_becomes_plain_and_comes_back(tmp_path):
    checkpoint = zoo_checkpoint()
    checkpoint['param_schedulers'] = [dict(anneal=np.mean, phases=[dict(end=np.float64(3))], last_step=2)]
    checkpoints.to_plain(checkpoint)
    torch.save(checkpoint, tmp_path / 'ours.pth')
    loaded = torch.load(tmp_path / 'ours.pth', weights_only=True)  # no help needed
    checkpoints.restore_history(loaded)
    assert loaded['param_schedulers'] == [dict(phases=[dict(end=3.0)], last_step=2)]
    assert loaded['meta']['dataset_meta']['palette'] == [[0, 0, 0], [0, 0, 0]]
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert history.data[0].tolist() == [1, 2] and history.max_length == 1000000
    history.update(4.0)
    assert history.current() == 4 and history.mean() == pytest.approx(7 / 3)
