"""A silo whose labels have a value of their own for what it did not annotate."""
import cv2
import numpy as np
import pytest
from mmseg.datasets import BaseSegDataset

from fedseg_mm import FedSegError
from fedseg_mm.datasets import ClientDataset, SampleKey, scan_labels
from tests.conftest import CLASSES

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='Pad', size=(12, 8), pad_val=dict(seg=255)), dict(type='PackSegInputs')]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('FEDSEG_CACHE', str(tmp_path / 'cache'))


def silo(folder, value: int, number: int = 1) -> BaseSegDataset:
    """Labels of 6x10: two rows of car, one of road, one void, two of ``value``."""
    label = np.repeat([2, 2, 1, 255, value, value], 10).reshape(6, 10).astype(np.uint8)
    for kind in ('images', 'masks'):
        (folder / kind).mkdir(exist_ok=True)
    for i in range(number):
        cv2.imwrite(str(folder / 'images' / f'{i}.png'), np.zeros((6, 10, 3), np.uint8))
        cv2.imwrite(str(folder / 'masks' / f'{i}.png'), label)
    return BaseSegDataset(img_suffix='.png', metainfo=dict(classes=CLASSES), data_root=str(folder), pipeline=PIPELINE,
                          data_prefix=dict(img_path='images', seg_map_path='masks'))


@pytest.mark.parametrize('value, void', [(0, 10), (200, 10), (254, 10), (255, 0)])
def test_its_value_is_counted_and_trained_as_unannotated(tmp_path, value, void):
    dataset = silo(tmp_path, value)
    counts = scan_labels(dataset, unannotated=np.array([value]))
    assert counts.classes.tolist() == [[0, 10, 20, 0]] and counts.unannotated.tolist() == [30 - void]
    label = ClientDataset(dataset)[SampleKey(0, (1, 2), 0, value)]['data_samples'].gt_sem_seg.data[0].numpy()
    expected = np.full((8, 12), 255)  # padding is void, even where void is the silo's value
    expected[:2, :10], expected[2, :10], expected[4:6, :10] = 2, 1, 254
    expected[3, :10] = 255 if void else 254
    assert (label == expected).all()


def test_other_clients_labels_mean_what_they_say(tmp_path):
    dataset = silo(tmp_path, 0)
    assert scan_labels(dataset).classes.tolist() == [[20, 10, 20, 0]]  # and no cache of the silo's counts is taken
    scan_labels(dataset, unannotated=np.array([0]))
    assert scan_labels(dataset).unannotated.tolist() == [0]
    label = ClientDataset(dataset)[SampleKey(0, (0, 1), 0)]['data_samples'].gt_sem_seg.data[0].numpy()
    assert (label[4:6, :10] == 0).all() and (label[:2, :10] == 254).all()


def test_images_of_nobody_are_not_opened(tmp_path):
    dataset = silo(tmp_path, 200, number=3)
    (tmp_path / 'images' / '1.png').unlink()
    counts = scan_labels(dataset, unannotated=np.array([200, -2, 200]))
    assert counts.classes.sum(1).tolist() == [30, 0, 30]
    with pytest.raises(FedSegError, match='masks/2.png holds the value 200'):
        scan_labels(dataset, unannotated=np.array([200, -2, -1]))
