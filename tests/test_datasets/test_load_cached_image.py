import os
import shutil

import cv2
import numpy as np
import pytest
from mmseg.registry import TRANSFORMS

from fedseg_mm.datasets import LoadCachedImage


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('FEDSEG_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'images'


@pytest.fixture
def image(own_data):
    return str(own_data / 'img_dir' / 'train' / '003.png')


@pytest.mark.parametrize('arguments', [{}, dict(to_float32=True), dict(color_type='grayscale')])
def test_equals_the_stock_transform_and_decodes_once(cache, image, arguments, monkeypatch):
    expected = TRANSFORMS.build(dict(type='LoadImageFromFile', **arguments))(dict(img_path=image))
    ours = TRANSFORMS.build(dict(type='LoadCachedImage', **arguments))
    first = ours(dict(img_path=image))
    monkeypatch.setattr(LoadCachedImage.__base__, 'transform', None)  # from here on there is nothing but the cache
    for found in (first, ours(dict(img_path=image))):
        assert found.keys() == expected.keys()
        assert np.array_equal(found['img'], expected['img']) and found['img'].dtype == expected['img'].dtype
        assert found['img_shape'] == expected['img_shape'] and found['ori_shape'] == expected['ori_shape']
        found['img'][:] = 0  # a transform that works in place spoils nothing


def test_a_changed_image_is_loaded_anew(cache, image):
    ours = LoadCachedImage()
    before = ours(dict(img_path=image))['img']
    cv2.imwrite(image, 255 - before)
    os.utime(image, ns=(1, 1))
    assert np.array_equal(ours(dict(img_path=image))['img'], 255 - before)


def test_a_damaged_or_impossible_cache_costs_nothing_but_time(cache, image):
    ours = LoadCachedImage()
    expected = ours(dict(img_path=image))['img']
    file, = cache.glob('*/*.npy')
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(ours(dict(img_path=image))['img'], expected)
    assert np.array_equal(np.load(file), expected)
    shutil.rmtree(cache)
    cache.write_text('a file stands where the folder would')
    assert np.array_equal(ours(dict(img_path=image))['img'], expected)


def test_a_missing_image_is_the_stock_transforms_error(cache, tmp_path):
    with pytest.raises(FileNotFoundError):
        LoadCachedImage()(dict(img_path=str(tmp_path / 'none.png')))
