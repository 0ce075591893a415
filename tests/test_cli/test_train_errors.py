"""A mistake is one clear sentence and a non-zero exit, before training."""
import cv2
import numpy as np
import pytest

from fedseg_mm.cli.train import main
from tests.conftest import run_tool, tiny_config, write_config


def refuse_quickly(capsys, *arguments) -> str:
    """As :func:`refuse`, in this process."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, str)  # which the interpreter prints, and exits with 1
    assert '\n' not in stop.value.code and 'Round 1' not in capsys.readouterr().out
    return stop.value.code


def refuse(tool, *arguments, **environment) -> str:
    """Run a tool that must refuse; return its sentence."""
    done = run_tool(tool, *arguments, **environment)
    lines = done.stderr.strip().splitlines()
    sentence = lines[-1] if lines else ''
    assert done.returncode == 1, done.stdout + done.stderr
    assert 'Traceback' not in done.stdout + done.stderr
    assert sentence.startswith(f'{tool}: ') and not any(line.startswith(f'{tool}: ') for line in lines[:-1])
    assert 'Round 1' not in done.stdout + done.stderr
    return sentence


def test_mistyped_section(tiny_data, tmp_path, capsys):
    config = write_config(tiny_data, tmp_path)
    sentence = refuse_quickly(capsys, config, '--cfg-options', 'fedrated.clients_per_round=2')
    assert sentence.endswith('the config has no `fedrated`, did you mean `federated`?')


def test_config_without_federated(tiny_data, tmp_path):
    cfg = tiny_config(tiny_data, tmp_path)
    del cfg._cfg_dict['federated']
    cfg.dump(tmp_path / 'plain.py')
    assert 'plain.py has no `federated = dict(...)`' in refuse('fed_train', tmp_path / 'plain.py')


def test_missing_or_broken_config(tmp_path):
    assert 'there is no config file none.py' in refuse('fed_train', 'none.py')
    (tmp_path / 'broken.py').write_text('model = dict(')
    assert 'broken.py cannot be read: SyntaxError' in refuse('fed_train', tmp_path / 'broken.py')


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('split', ['train', 'test'])
@pytest.mark.parametrize('what', ['value', 'cut image', 'cut label'])
def test_files_that_cannot_be_trained_on(own_data, tmp_path, what, split, workers):
    """Also in the evaluation's images: they would stop the run at its first evaluation."""
    image, label = (own_data / kind / split / '002.png' for kind in ('img_dir', 'ann_dir'))
    if what == 'value':
        cv2.imwrite(str(label), np.full((48, 64), 77, np.uint8))
    else:
        path = image if what == 'cut image' else label
        path.write_bytes(path.read_bytes()[:70])
    config = write_config(own_data, tmp_path, **{'train_dataloader.num_workers': workers,
                                                 'val_dataloader.num_workers': workers})
    sentence = refuse('fed_train', config, FEDSEG_CACHE=str(tmp_path / 'cache'))
    assert f'{split}/002.png' in sentence and ('77' in sentence or what != 'value')


def test_mixing_transform(tiny_data, tmp_path, capsys):
    mosaic = dict(type='RandomMosaic', prob=0.5, img_scale=(48, 64))
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), mosaic, dict(type='PackSegInputs')]
    config = write_config(tiny_data, tmp_path, **{'train_dataloader.dataset.pipeline': pipeline})
    assert 'RandomMosaic of BaseSegDataset mixes images' in refuse_quickly(capsys, config)


def test_checkpoint_of_test(tiny_data, tmp_path):
    config = write_config(tiny_data, tmp_path)
    assert 'there is no checkpoint none.pth' in refuse('test', config, 'none.pth')
    (tmp_path / 'text.pth').write_text('hello')
    assert 'text.pth cannot be read' in refuse('test', config, tmp_path / 'text.pth')


@pytest.mark.parametrize('what', ['value', 'missing', 'cut image'])
def test_files_that_cannot_be_evaluated_on(own_data, tmp_path, what):
    config = write_config(own_data, tmp_path, **{'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9})
    assert run_tool('fed_train', config).returncode == 0
    image, label = (own_data / kind / 'test' / '002.png' for kind in ('img_dir', 'ann_dir'))
    if what == 'value':
        cv2.imwrite(str(label), np.full((48, 64), 7, np.uint8))
    elif what == 'missing':
        label.unlink()
    else:
        image.write_bytes(image.read_bytes()[:70])
    sentence = refuse('test', config, tmp_path / 'round_1.pth')
    assert 'test/002.png' in sentence and ('the value 7' in sentence or what != 'value')


def test_checkpoint_of_another_model(tiny_data, tmp_path):
    config = write_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9})
    assert run_tool('fed_train', config).returncode == 0
    sentence = refuse('test', config, tmp_path / 'round_1.pth', '--cfg-options', 'model.decode_head.channels=16')
    assert 'round_1.pth is not of this model' in sentence and 'decode_head' in sentence


def test_what_is_left_out_is_said(own_data, tmp_path):
    cv2.imwrite(str(own_data / 'img_dir' / 'train' / 'more.jpg'), np.zeros((48, 64, 3), np.uint8))
    done = run_tool('fed_partition', write_config(own_data, tmp_path))
    assert done.returncode == 0
    assert "and leaves out 1 whose names do not end in img_suffix='.png', such as more.jpg" in ' '.join(
        (done.stdout + done.stderr).split())


def test_options_that_do_not_fit_are_not_blamed_on_the_file(tiny_data, tmp_path, capsys):
    config = write_config(tiny_data, tmp_path)
    sentence = refuse_quickly(capsys, config, '--cfg-options', 'param_scheduler.7.type=PolyLR')
    assert '--cfg-options param_scheduler.7.type=PolyLR do not fit the config' in sentence


@pytest.mark.parametrize('option', ["custom_hooks=[dict(type='EMAHook',momentum=0.1)]", 'no_value'])
def test_cfg_options_that_cannot_be_read(option, capsys):
    with pytest.raises(SystemExit) as stop:
        main(['config.py', '--cfg-options', option])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and 'cannot be read: override settings' in error and 'Traceback' not in error


def test_a_file_of_one_s_own_that_imports_a_wrong_name(tiny_data, tmp_path, monkeypatch, capsys):
    (tmp_path / 'my_broken_method.py').write_text('from fedseg_mm.algorithms import FedAverage\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    config = write_config(tiny_data, tmp_path, **{'custom_imports.imports': ['fedseg_mm', 'my_broken_method']})
    sentence = refuse_quickly(capsys, config)
    assert f"the imports of the config {config} fail: cannot import name 'FedAverage'" in sentence
    assert 'PYTHONPATH' not in sentence
