"""tools/fed_publish.py as a user runs it, and what MMSegmentation makes of its file."""
import hashlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.registry import MODELS

from fedseg_mm.cli.publish import main, publish
from fedseg_mm.cli.test import main as evaluate
from tests.conftest import CLASSES, assert_same_bits, run_tool, tiny_config, weights_of, write_config
from tests.test_engine.test_federated_loop import train


class Training(NamedTuple):
    checkpoint: Path
    config: str


@pytest.fixture(scope='module')
def fedseg(tiny_data, tmp_path_factory) -> Training:
    """A federated training with FedSeg's contrast and its projection head."""
    folder = tmp_path_factory.mktemp('fedseg')
    config = write_config(tiny_data, folder, **{
        'federated.algorithm': dict(type='FedSeg', start_round=0), 'train_cfg.max_rounds': 2})
    train(Config.fromfile(config))
    return Training(folder / 'round_2.pth', config)


@pytest.fixture(scope='module')
def plain_config(tiny_data, tmp_path_factory) -> str:
    """The same segmentor's config without any of our types in it, as MMEngine dumps it."""
    cfg = tiny_config(tiny_data, tmp_path_factory.mktemp('plain'))
    for key in ('federated', 'custom_imports', 'train_cfg', 'default_hooks', 'log_processor'):
        cfg.pop(key)
    cfg.model.decode_head.loss_decode = dict(type='CrossEntropyLoss')
    cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline  # as MMSegmentation's configs have it
    path = Path(cfg.work_dir) / 'plain.py'
    cfg.dump(path)
    assert 'fedseg' not in path.read_text().replace(str(path.parent), '').lower()
    return str(path)


def refuse(capsys, *arguments) -> str:
    """The sentence with which the tool refuses."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, str) and '\n' not in stop.value.code
    assert stop.value.code.startswith('fed_publish: ') and capsys.readouterr().out == ''
    return stop.value.code


def test_the_tool_writes_a_plain_checkpoint(fedseg, plain_config, tiny_data, tmp_path):
    before = fedseg.checkpoint.read_bytes()
    done = run_tool('fed_publish', fedseg.checkpoint, '--out', tmp_path / 'new' / 'folder')
    assert done.returncode == 0, done.stderr
    (path, ) = (tmp_path / 'new' / 'folder').iterdir()
    assert path.name == f'round_2-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth'
    assert f'{path} ({path.stat().st_size / 1e6:.2f} MB)' in done.stdout
    assert fedseg.checkpoint.read_bytes() == before

    published = torch.load(path, weights_only=True)  # no help needed
    trained = weights_of(fedseg.checkpoint)
    assert published.keys() == {'meta', 'state_dict'}
    assert published['state_dict'].keys() == MODELS.build(Config.fromfile(plain_config).model).state_dict().keys()
    left_out = trained.keys() - published['state_dict'].keys()
    assert left_out and all(name.startswith('projection_head.') for name in left_out)
    assert_same_bits(published['state_dict'], {name: trained[name] for name in published['state_dict']})
    assert published['meta'].pop('dataset_meta').keys() == {'classes', 'palette'}
    assert published['meta'].keys() == {'mmengine_version', 'mmseg_version', 'fedseg_mm_version'}
    assert str(tiny_data).encode() not in path.read_bytes()  # nobody's folders

    (command, ) = re.findall(r'^Predict: +(.+)$', done.stdout, re.MULTILINE)
    assert fedseg.config in command  # found beside the checkpoint
    program, *arguments = shlex.split(command.replace('IMAGE.png', str(tiny_data / 'img_dir' / 'test' / '000.png')))
    assert program == 'python'
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for kind in ('vis', 'pred'):
        (picture, ) = (tmp_path / 'predictions' / kind).iterdir()
        assert cv2.imread(str(picture)).shape == (48, 64, 3)


def test_mmsegs_inferencer_predicts_as_the_trained_model(fedseg, plain_config, tiny_data, tmp_path):
    path = publish(fedseg.checkpoint, tmp_path)
    cfg = Config.fromfile(plain_config)
    model = MODELS.build(cfg.model)
    model.load_state_dict(weights_of(fedseg.checkpoint), strict=False)
    model.eval()
    pipeline = Compose([step for step in cfg.test_pipeline if step.type != 'LoadAnnotations'])
    inferencer = MMSegInferencer(model=plain_config, weights=str(path), device='cpu')
    loaded = init_model(plain_config, str(path), device='cpu')
    assert inferencer.model.dataset_meta['classes'] == loaded.dataset_meta['classes'] == CLASSES
    assert len(loaded.dataset_meta['palette']) == len(CLASSES)
    for image in sorted((tiny_data / 'img_dir' / 'test').iterdir()):
        image = str(image)
        with torch.no_grad():
            expected, = model.test_step(pseudo_collate([pipeline(dict(img_path=image))]))
        for found in (inferencer(image, return_datasamples=True), inference_model(loaded, image)):
            assert torch.equal(found.seg_logits.data, expected.seg_logits.data)
            assert torch.equal(found.pred_sem_seg.data, expected.pred_sem_seg.data)


def test_a_file_is_never_replaced_by_another(fedseg, tmp_path, capsys):
    path = publish(fedseg.checkpoint, tmp_path)
    written = path.stat().st_mtime_ns
    assert publish(fedseg.checkpoint, tmp_path) == path and path.stat().st_mtime_ns == written
    path.write_bytes(b'precious')
    assert 'exists with other content' in refuse(capsys, fedseg.checkpoint, '--out', tmp_path)
    assert path.read_bytes() == b'precious' and list(tmp_path.iterdir()) == [path]


def test_the_name_and_place_of_the_file(fedseg, tmp_path, monkeypatch):
    copy = tmp_path / 'best.mIoU.pth'
    copy.write_bytes(fedseg.checkpoint.read_bytes())
    beside = publish(copy)
    digest = beside.stem[-8:]
    assert beside == tmp_path / f'best.mIoU-{digest}.pth'
    assert publish(copy, tmp_path / 'x' / 'zoo.pth') == tmp_path / 'x' / f'zoo-{digest}.pth'  # the name is not in it
    monkeypatch.chdir(tmp_path)
    assert publish(Path('best.mIoU.pth')) == Path(beside.name)
    again = publish(beside, tmp_path / 'again')
    assert again.read_bytes() == beside.read_bytes()


def test_only_the_named_weights_are_in_the_file(tmp_path):
    """No storage behind a view, and nothing that asks for gradients."""
    storage = torch.full((100_000, ), 7.0)
    torch.save(dict(state_dict={'module.w': torch.nn.Parameter(storage[:3]), 'module.projection_head.w': storage},
                    meta=dict(CLASSES=('a', 'b'), PALETTE=np.zeros((2, 3), np.uint8), mmseg_version='0.30.0')),
               tmp_path / 'old.pth')
    path = publish(tmp_path / 'old.pth')
    published = torch.load(path, weights_only=True)
    assert published['state_dict'].keys() == {'w'} and published['state_dict']['w'].tolist() == [7, 7, 7]
    assert type(published['state_dict']['w']) is torch.Tensor and path.stat().st_size < 10_000
    assert published['meta']['dataset_meta'] == dict(classes=('a', 'b'), palette=[[0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize('content, sentence', [
    (None, 'there is no checkpoint'),
    (b'hello', 'cannot be read: it is damaged'),
    ([1, 2], 'is not a checkpoint: it holds a list'),
    (dict(w=torch.ones(1)), 'has no `state_dict`'),
    (dict(state_dict=torch.ones(1)), 'has no `state_dict`'),
    (dict(state_dict={'projection_head.w': torch.ones(1), 'a': 1}), 'holds no weights of a segmentor'),
    (dict(state_dict={}, meta=Path('x')), 'could run code'),
])
def test_what_cannot_be_published(content, sentence, tmp_path, capsys):
    path = tmp_path / 'file.pth'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    message = refuse(capsys, path, '--out', tmp_path / 'out')
    assert sentence in message and 'file.pth' in message and not (tmp_path / 'out').exists()


def test_a_folder_that_is_a_file(fedseg, tmp_path, capsys):
    (tmp_path / 'file').write_text('precious')
    for out in ('file', 'file/folder', 'file/name.pth'):
        assert f'{tmp_path}/file' in refuse(capsys, fedseg.checkpoint, '--out', tmp_path / out)
    assert 'cannot be made' in refuse(capsys, fedseg.checkpoint, '--out', '/proc/nowhere')
    assert (tmp_path / 'file').read_text() == 'precious' and len(list(tmp_path.iterdir())) == 1


def test_a_file_that_cannot_be_written(fedseg, tmp_path, capsys, monkeypatch):
    def full(path, content):
        path.touch()
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    assert refuse(capsys, fedseg.checkpoint, '--out', tmp_path).endswith('cannot be written: No space left on device')
    assert not list(tmp_path.iterdir())


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    text = capsys.readouterr().out
    for word in ('--out', 'examples:', 'python tools/fed_publish.py', 'MMSegInferencer', 'SHA-256'):
        assert word in text


def test_the_training_s_own_checkpoint_is_evaluated_without_a_warning(fedseg, tmp_path, capfd):
    """Its projection head is of no use to a test, and no mistake of the user's."""
    evaluate([fedseg.config, str(fedseg.checkpoint), '--work-dir', str(tmp_path)])
    printed = ''.join(capfd.readouterr())
    assert 'mIoU' in printed and 'are loaded from the' not in printed and 'projection_head' not in printed
    assert 'Loads checkpoint by' not in printed
