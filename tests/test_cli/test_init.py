"""A folder of images and masks becomes a config that trains, as it stands."""
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from fedseg_mm.cli.init import main
from fedseg_mm.cli.train import main as train
from tests.conftest import make_images


def layout(folder: Path, data: Path, images='images', masks='masks', splits=True, ending='.png') -> Path:
    """The tiny images, laid out in one of the ways that people have."""
    for kind, target in (('img_dir', images), ('ann_dir', masks)):
        for split, name in (('train', 'train'), ('test', 'val')):
            place = folder / target / (name if splits else '')
            place.mkdir(parents=True, exist_ok=True)
            for path in sorted((data / kind / split).iterdir()):
                stem = path.stem if splits else f'{name}{path.stem}'
                shutil.copy(path, place / f'{stem}{ending if kind == "ann_dir" else ".png"}')
    return folder


@pytest.mark.parametrize('how', [
    {}, dict(images='JPEGImages', masks='SegmentationClass', ending='_labels.png'), dict(splits=False)])
def test_the_config_trains(tiny_data, tmp_path, monkeypatch, capsys, how):
    monkeypatch.chdir(tmp_path)
    folder = layout(tmp_path / 'mine', tiny_data, **how)
    before = sorted(folder.rglob('*'))
    main(['mine', '--classes', 'sky', 'road', 'car', 'tree', '--clients', '6'])
    output = capsys.readouterr().out
    assert 'Config       mine.py' in output and 'void (' in output
    assert sorted(folder.rglob('*')) == before
    cfg = Config.fromfile('mine.py')
    assert cfg.train_dataloader.dataset.metainfo.classes == ('sky', 'road', 'car', 'tree')
    assert cfg.model.decode_head.num_classes == 4 and cfg.federated.partitioner.num_clients == 6
    train(['mine.py', '--cfg-options', 'train_cfg.max_rounds=1', 'train_cfg.val_interval=1'])
    output = capsys.readouterr().out
    images = (23, 5) if 'splits' in how else (24, 4)  # of 28, every fifth is kept
    assert f'{images[0]} images' in output and f'[{images[1]}/{images[1]}]' in output


def test_the_other_model_has_two_heads(tiny_data, tmp_path):
    layout(tmp_path / 'mine', tiny_data)
    main([str(tmp_path / 'mine'), '--model', 'deeplabv3', '--out', str(tmp_path / 'own.py')])
    cfg = Config.fromfile(tmp_path / 'own.py')
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 4
    assert cfg.train_dataloader.dataset.metainfo.classes[0] == 'class_0'


def spoil(folder: Path, how: str) -> None:
    masks = sorted((folder / 'masks' / 'train').iterdir())
    label = cv2.imread(str(masks[0]), cv2.IMREAD_UNCHANGED)
    if how == 'painted':
        cv2.imwrite(str(masks[0]), np.repeat(label[..., None], 3, -1))
    elif how == 'binary':
        for mask in masks:
            cv2.imwrite(str(mask), np.where(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED) > 0, 255, 0).astype(np.uint8))
    elif how == 'cut off':
        masks[0].write_bytes(masks[0].read_bytes()[:40])
    elif how == 'missing':
        masks[0].unlink()
    elif how == 'other names':
        for i, mask in enumerate(masks):
            mask.rename(mask.with_name(f'm{i}.png'))
    elif how == 'no images':
        shutil.rmtree(folder / 'images')
    elif how == 'no validation':
        shutil.rmtree(folder / 'images' / 'val')


@pytest.mark.parametrize('how, options, sentence', [
    ('painted', [], 'has 3 channels, but must hold one class index per pixel'),
    ('binary', [], 'the masks hold only 0 and 255: there is nothing to tell apart. 255 means void'),
    ('cut off', [], 'or its mask 000.png cannot be read'),
    ('missing', [], '1 of 24 images have no mask, such as 000'),
    ('other names', [], 'begins with the name of an image'),
    ('no images', [], 'has none of the folders images, image, '),
    ('no validation', [], 'has only the subfolder train'),
    ('', ['--classes', 'a', 'b'], '--classes names 2, but the masks hold values up to 3: name 4'),
    ('', ['--clients', '99'], '--clients 99 is more than the 24 images for training'),
    ('', ['--clients', '0'], '--clients must be an integer of at least 1, but is 0'),
    ('', ['--out', 'config.json'], '--out config.json must end in .py'),
    ('', ['--out', __file__], 'exists: move it away, or name another with --out')])
def test_what_cannot_be_used_is_one_sentence(tiny_data, tmp_path, monkeypatch, how, options, sentence):
    monkeypatch.chdir(tmp_path)
    spoil(layout(tmp_path / 'mine', tiny_data), how)
    with pytest.raises(SystemExit) as stop:
        main(['mine', *options])
    assert sentence in str(stop.value.code) and not (tmp_path / 'mine.py').exists()


def test_no_such_folder(tmp_path):
    make_images(tmp_path, 'train', 1)
    with pytest.raises(SystemExit, match='there is no folder'):
        main([str(tmp_path / 'nothing')])
