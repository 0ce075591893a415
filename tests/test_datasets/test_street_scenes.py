"""The built-in data set, its loading, and what it draws."""
import hashlib

import numpy as np
import pytest
from mmengine import fileio

from fedseg_mm import FedSegError
from fedseg_mm.datasets import LoadStreetScene, StreetScenesDataset, scan_labels
from fedseg_mm.datasets.transforms import load_street_scene
from fedseg_mm.datasets.transforms.load_street_scene import VERSION, paint_scene, scene_path

OWN = [dict(type='LoadStreetScene'), dict(type='PackSegInputs')]
STOCK = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
SMALL = dict(num_images=3, size=(64, 48))


def label(**place) -> np.ndarray:
    return paint_scene(scene_path(**{**dict(split='train', index=0, size=(64, 48)), **place}))[1]


def test_a_scene_is_the_same_wherever_and_whenever_it_is_drawn():
    first = paint_scene(scene_path('train', 5, (64, 48)))
    np.random.seed(9)
    paint_scene(scene_path('train', 6, (64, 48)))
    again = paint_scene(scene_path('train', 5, (64, 48)))
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    others = [label(), label(index=1), label(split='val'), label(seed=1)]
    assert len({other.tobytes() for other in others}) == 4


def test_labels_are_those_of_this_version():
    """Drawn with integers, they are the same on every machine; who changes the painter raises VERSION."""
    labels = np.stack([label(index=index, size=(160, 120)) for index in range(20)])
    assert (VERSION, hashlib.sha256(labels.tobytes()).hexdigest()[:16]) == (1, 'df54f2a04c65ba61')


def test_classes_differ_widely_and_vary():
    counts = np.stack([np.bincount(label(index=i, size=(96, 72)).ravel(), minlength=256) for i in range(150)])
    assert set(np.flatnonzero(counts.sum(0))) == {*range(10), 255}
    share = counts.sum(0)[:10] / counts.sum()
    shown = (counts[:, :10] > 0).mean(0)
    classes = StreetScenesDataset.METAINFO['classes']
    assert share[classes.index('road')] > 0.25 and share[classes.index('sign')] < 0.01
    assert shown[classes.index('road')] == 1 and shown[classes.index('bus')] < 0.3
    assert 0.3 < shown[classes.index('person')] < 0.8
    images = np.stack([paint_scene(scene_path('train', i, (96, 72)))[0] for i in range(50)])
    assert images.mean((1, 2, 3)).std() > 15  # of 255: light differs from scene to scene


@pytest.mark.parametrize('arguments', [
    dict(), dict(metainfo=dict(classes=('car', 'sky'))),
    dict(reduce_zero_label=True, metainfo=dict(classes=StreetScenesDataset.METAINFO['classes']))])
def test_stock_loading_loads_the_same(arguments):
    own, stock = (StreetScenesDataset(**SMALL, **arguments, pipeline=pipeline) for pipeline in (OWN, STOCK))
    for a, b in zip(own, stock):
        assert (a['inputs'] == b['inputs']).all() and a['inputs'].shape == (3, 48, 64)
        assert (a['data_samples'].gt_sem_seg.data == b['data_samples'].gt_sem_seg.data).all()
        assert a['data_samples'].ori_shape == b['data_samples'].ori_shape == (48, 64)
    assert len(own) == 3 and own.metainfo['palette'] == stock.metainfo['palette']


def test_labels_are_counted_before_training():
    counts = scan_labels(StreetScenesDataset(**SMALL, pipeline=OWN)).classes
    assert (counts == [[(label(index=i) == cls).sum() for cls in range(10)] for i in range(3)]).all()


@pytest.mark.parametrize('arguments, message', [
    (dict(num_images=0), 'num_images of StreetScenesDataset must be an integer of at least 1'),
    (dict(size=64), r'must be \(width, height\), but is 64'),
    (dict(size=(64, 0)), 'width and height of StreetScenesDataset must be an integer of at least 1'),
])
def test_mistakes_are_one_sentence(arguments, message):
    with pytest.raises(FedSegError, match=message):
        StreetScenesDataset(**arguments)


def test_what_is_no_scene_is_refused():
    for load in (fileio.get, lambda path: LoadStreetScene()(dict(img_path=path))):
        with pytest.raises(FedSegError, match='street_scenes://train/3.png is not the name of a street scene'):
            load('street_scenes://train/3.png')


def test_scenes_that_were_drawn_are_kept_up_to_a_limit_and_never_changed(monkeypatch):
    drawn = []
    paint = load_street_scene.StreetScenePainter.paint
    monkeypatch.setattr(load_street_scene.StreetScenePainter, 'paint', lambda self: drawn.append(1) or paint(self))
    monkeypatch.setattr(load_street_scene, '_kept', load_street_scene.OrderedDict())
    monkeypatch.setattr(load_street_scene, 'KEPT_BYTES', 3 * 4 * 64 * 48)
    image, label = paint_scene(scene_path('train', 0, (64, 48)))
    before = image.copy()
    image[:] = 0
    assert (paint_scene(scene_path('train', 0, (64, 48), label=True))[0] == before).all() and len(drawn) == 1
    for index in (1, 2, 0, 3):
        paint_scene(scene_path('train', index, (64, 48)))
    assert len(drawn) == 4 and len(load_street_scene._kept) == 3
    paint_scene(scene_path('train', 0, (64, 48)))  # asked for lately
    assert len(drawn) == 4
    paint_scene(scene_path('train', 1, (64, 48)))
    assert len(drawn) == 5
