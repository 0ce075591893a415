"""The evaluation tool: label maps, images without labels, classes that are not there."""
import shutil

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from fedseg_mm.cli import test as tool
from fedseg_mm.cli.train import main as train
from tests.conftest import CLASSES, make_images, tiny_config


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config and its checkpoint of one round."""
    folder = tmp_path_factory.mktemp('trained')
    make_images(folder / 'data', 'train', 24)
    make_images(folder / 'data', 'test', 4, seed=1)
    cfg = tiny_config(folder / 'data', folder / 'run', **{'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9})
    for part in ('cfg', 'dataloader', 'evaluator'):
        cfg[f'val_{part}'] = None
    cfg.dump(folder / 'config.py')
    train([str(folder / 'config.py')])
    return folder


def evaluate(trained, tmp_path, *arguments, **changes) -> None:
    cfg = Config.fromfile(trained / 'config.py')
    cfg.merge_from_dict(changes)
    for key in [key for key, value in changes.items() if isinstance(value, list) and '.' not in key]:
        cfg[key] = changes[key]
    cfg.dump(tmp_path / 'config.py')
    tool.main([str(tmp_path / 'config.py'), str(trained / 'run' / 'round_1.pth'), '--work-dir', str(tmp_path / 'run'),
               *map(str, arguments)])


def said(work_dir) -> str:
    """The log of a run."""
    return max(work_dir.glob('*/*.log')).read_text()


def refused(*arguments, **changes) -> str:
    with pytest.raises(SystemExit) as stop:
        evaluate(*arguments, **changes)
    return stop.value.code


IOU = dict(type='IoUMetric', iou_metrics=['mIoU'])
IMAGES_ONLY = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]


@pytest.mark.parametrize('evaluator', [
    [IOU, dict(type='IoUMetric', iou_metrics=['mDice'], prefix='dice')],
    dict(type='Evaluator', metrics=[IOU]), IOU], ids=['list', 'Evaluator', 'dict'])
def test_label_maps_with_any_kind_of_evaluator(trained, tmp_path, evaluator):
    if isinstance(evaluator, dict):
        evaluator = dict(_delete_=True, **evaluator)
    evaluate(trained, tmp_path, '--out', tmp_path / 'maps', test_evaluator=evaluator)
    assert sorted(path.name for path in (tmp_path / 'maps').iterdir()) == [f'{i:03d}.png' for i in range(4)]


def test_no_metric_that_writes_label_maps(trained, tmp_path):
    sentence = refused(trained, tmp_path, '--out', tmp_path / 'maps', test_evaluator=[dict(type='DumpResults')])
    assert '--out needs a metric in test_evaluator that writes label maps' in sentence


@pytest.mark.parametrize('prefix', [dict(img_path='only'), dict(img_path='only', seg_map_path='nowhere')])
def test_images_without_labels(trained, tmp_path, prefix):
    """What mmseg's own tool writes for a test set whose labels are kept back."""
    shutil.copytree(trained / 'data' / 'img_dir' / 'test', trained / 'data' / 'only', dirs_exist_ok=True)
    changes = {'test_evaluator.format_only': True, 'test_evaluator.output_dir': str(tmp_path / 'maps'),
               'test_dataloader.dataset.pipeline': IMAGES_ONLY,
               'test_dataloader.dataset.data_prefix': dict(_delete_=True, **prefix)}
    evaluate(trained, tmp_path, **changes)
    assert len(list((tmp_path / 'maps').iterdir())) == 4
    (trained / 'data' / 'only' / '000.png').write_bytes(b'no image')
    assert 'only/000.png is damaged' in refused(trained, tmp_path, **changes)


def test_images_without_labels_and_a_metric_that_needs_them(trained, tmp_path):
    sentence = refused(trained, tmp_path, **{'test_dataloader.dataset.pipeline': IMAGES_ONLY})
    assert sentence == ('test: the pipeline loads no labels: add LoadAnnotations to it or, where predictions are only '
                        'written, set format_only=True in the evaluator')


def test_a_test_set_without_classes(trained, tmp_path):
    sentence = refused(trained, tmp_path, **{'test_dataloader.dataset.metainfo': dict(_delete_=True)})
    assert sentence.startswith('test: the evaluation data set has no class names: set metainfo=dict(classes=...)')


def test_a_class_that_no_image_shows_is_said_beside_the_mean(trained, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(trained / 'data', data)
    for path in (data / 'ann_dir' / 'test').iterdir():
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where((label > 1) & (label < 255), 1 - label % 2, label))
    changes = {f'{mode}_dataloader.dataset.data_root': str(data) for mode in ('train', 'test')}
    evaluate(trained, tmp_path, **changes)
    sentence = f'No evaluated image shows {CLASSES[2]}, {CLASSES[3]}: mIoU is the mean over the other 2 of 4 classes'
    assert said(tmp_path / 'run').count(sentence) == 1
    cfg = tiny_config(data, tmp_path / 'again', **{'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 1})
    cfg.dump(tmp_path / 'again.py')
    train([str(tmp_path / 'again.py')])
    assert said(tmp_path / 'again').count(sentence) == 2
