import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image, PngImagePlugin

import fedseg_mm.datasets.label_scan as label_scan
from fedseg_mm import FedSegError
from fedseg_mm.datasets import CamVidDataset
from fedseg_mm.datasets import scan_labels as scan
from tests.conftest import CLASSES, make_images

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


def scan_labels(*args) -> np.ndarray:
    return scan(*args).classes


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('FEDSEG_CACHE', str(tmp_path / 'cache'))


def dataset(folder, split='train', **kwargs):
    return BaseSegDataset(**{**dict(
        img_suffix='.png', metainfo=dict(classes=CLASSES), data_root=str(folder), pipeline=PIPELINE,
        data_prefix=dict(img_path=f'img_dir/{split}', seg_map_path=f'ann_dir/{split}')), **kwargs})


def labels(folder, split='train'):
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((folder / 'ann_dir' / split).iterdir())]


@pytest.mark.parametrize('workers', [0, 2])
def test_counts_equal_the_pixels(tiny_data, workers):
    expected = [[(label == c).sum() for c in range(4)] for label in labels(tiny_data)]
    counts = scan_labels(dataset(tiny_data), workers)
    assert counts.dtype == np.int64 and counts.tolist() == np.array(expected).tolist()


def test_joined_data_sets(tiny_data):
    joined = ConcatDataset([dataset(tiny_data), dataset(tiny_data, 'test')])
    assert scan_labels(joined).shape == (28, 4)
    assert scan_labels(joined)[24:].tolist() == scan_labels(dataset(tiny_data, 'test')).tolist()


def test_labels_pass_through_the_data_sets_own_loading(tiny_data):
    plain = scan_labels(dataset(tiny_data))
    reduced = scan_labels(dataset(tiny_data, metainfo=dict(classes=CLASSES[1:]), reduce_zero_label=True))
    assert reduced.tolist() == plain[:, 1:].tolist()

    @DATASETS.register_module(force=True)
    class FourClasses(BaseSegDataset):
        METAINFO = dict(classes=CLASSES, palette=[[0, 0, 0]] * 4)

    mapped = FourClasses(
        img_suffix='.png', seg_map_suffix='.png', data_root=str(tiny_data), pipeline=PIPELINE,
        metainfo=dict(classes=('car', 'sky')),
        data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'))
    assert scan_labels(mapped).tolist() == plain[:, [2, 0]].tolist()


def test_cache_notices_changed_files(own_data, monkeypatch):
    first, size = scan_labels(dataset(own_data)), label_scan._image_size
    monkeypatch.setattr(label_scan, '_image_size', lambda path, loader: pytest.fail('scanned again'))
    assert (scan_labels(dataset(own_data)) == first).all()
    monkeypatch.setattr(label_scan, '_image_size', size)
    path = own_data / 'ann_dir' / 'train' / '000.png'
    cv2.imwrite(str(path), np.zeros((48, 64), np.uint8))
    changed = scan_labels(dataset(own_data))
    assert changed[0].tolist() == [48 * 64, 0, 0, 0] and (changed[1:] == first[1:]).all()


@pytest.mark.parametrize('workers', [0, 2])
def test_global_generator_is_left_alone(tiny_data, workers):
    """Else a run with a cold cache would start from other weights than one with a warm one."""
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    scan_labels(dataset(tiny_data), workers)
    assert torch.equal(torch.rand(1), expected)


def test_damaged_cache_is_scanned_again(own_data, tmp_path):
    first = scan_labels(dataset(own_data))
    cache, = (tmp_path / 'cache').iterdir()
    cache.write_bytes(cache.read_bytes()[:40])
    assert (scan_labels(dataset(own_data)) == first).all()


def test_cache_that_cannot_be_written_is_no_error(own_data, monkeypatch):
    monkeypatch.setenv('FEDSEG_CACHE', '/proc/nowhere')
    assert scan_labels(dataset(own_data)).shape == (24, 4)


def spoil(folder, what):
    image, label = folder / 'img_dir' / 'train' / '007.png', folder / 'ann_dir' / 'train' / '007.png'
    if what == 'value':
        cv2.imwrite(str(label), np.full((48, 64), 4, np.uint8))
    elif what == '254':
        cv2.imwrite(str(label), np.full((48, 64), 254, np.uint8))
    elif what == 'size':
        cv2.imwrite(str(label), np.zeros((48, 60), np.uint8))
    elif what == 'colour':
        cv2.imwrite(str(label), np.zeros((48, 64, 3), np.uint8))
    elif what == '16 bit':
        cv2.imwrite(str(label), np.full((48, 64), 257, np.uint16))
    elif what == 'cut 16 bit':
        cv2.imwrite(str(label), np.random.RandomState(0).randint(0, 4, (48, 64)).astype(np.uint16))
        label.write_bytes(label.read_bytes()[:300])
    elif what == 'no label':
        label.unlink()
    elif what == 'cut label':
        label.write_bytes(label.read_bytes()[:60])
    elif what == 'text label':
        label.write_text('no image')
    elif what == 'cut image':
        image.write_bytes(image.read_bytes()[:2000])
    elif what == 'text image':
        image.write_text('no image')


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('what, message', [
    ('value', r'label .*007.png holds the value 4, but the 4 classes are 0 to 3'),
    ('254', r'label .*007.png holds the value 254'),
    ('size', r'label .*007.png is 60x48 pixels, but its image .*007.png is 64x48'),
    ('colour', r'label .*007.png has 3 dimensions'),
    ('16 bit', r'label .*007.png holds the value 257 in 16 or 32 bits'),
    ('cut 16 bit', r'label .*007.png'),
    ('no label', r'label .*ann_dir/train/007.png of image .* does not exist'),
    ('cut label', r'label .*007.png'),
    ('text label', r'label .*007.png is damaged'),
    ('cut image', r'image .*img_dir/train/007.png is damaged'),
    ('text image', r'image .*img_dir/train/007.png is damaged'),
])
def test_what_cannot_be_trained_on_is_named(own_data, what, message, workers):
    spoil(own_data, what)
    with pytest.raises(FedSegError, match=message) as error:
        scan_labels(dataset(own_data), workers)
    assert '\n' not in str(error.value)


def test_negative_labels_of_a_special_loader_are_named(own_data):
    data = dataset(own_data)

    class Loader:
        with_seg = True

        def __call__(self, results):
            return {**results, 'gt_seg_map': np.full((48, 64), -1)}

    data.pipeline.transforms[1] = Loader()
    with pytest.raises(FedSegError, match='000.png holds the value -1'):
        scan_labels(data)


def test_labels_that_are_loaded_after_a_resize(own_data):
    """As in test pipelines; Resize by a factor asks for the image, which the scan does not load."""
    pipeline = [PIPELINE[0], dict(type='Resize', scale_factor=0.5, keep_ratio=True), *PIPELINE[1:]]
    assert (scan_labels(dataset(own_data, pipeline=pipeline)) == scan_labels(dataset(own_data))).all()


def test_photos_that_are_turned_upright_when_loaded(own_data):
    image = own_data / 'img_dir' / 'train' / '007.png'
    picture = Image.open(image)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(image, exif=exif)
    assert scan_labels(dataset(own_data)).shape == (24, 4)


def test_real_camvid(camvid):
    counts = [
        scan_labels(CamVidDataset(data_root=str(camvid), pipeline=PIPELINE,
                                  data_prefix=dict(img_path=f'img_dir/{split}', seg_map_path=f'ann_dir/{split}')), 2)
        for split in ('train', 'val', 'test')
    ]
    assert [c.shape for c in counts] == [(367, 11), (101, 11), (233, 11)]
    assert (counts[0].sum(1) > 0.5 * 480 * 360).all() and counts[0].sum() > 0.9 * 367 * 480 * 360  # little void
    assert counts[0].sum(0).argmax() in (1, 3)  # buildings and road are the most frequent


def test_image_suffix_of_palette(tmp_path):
    """A label in palette mode is read as its indices."""
    make_images(tmp_path, 'train', 2)
    for path in (tmp_path / 'ann_dir' / 'train').iterdir():
        image = Image.fromarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)).convert('P')
        image.putpalette([i for c in range(256) for i in (c, 255 - c, 0)])
        image.save(path)
    assert scan_labels(dataset(tmp_path)).sum() > 0


def turned(path, rotate=True) -> None:
    """A photo whose EXIF data say that it is to be turned, over the file at ``path``."""
    picture = Image.open(path)
    exif = picture.getexif()
    exif[0x0112] = 6
    (picture.transpose(Image.Transpose.ROTATE_90) if rotate else picture).save(path, exif=exif)


@pytest.mark.parametrize('color_type, backend, is_turned', [
    ('color', 'cv2', True), ('grayscale', 'cv2', True), ('color', 'pillow', True), ('color', None, True),
    ('color_ignore_orientation', 'cv2', False), ('unchanged', 'cv2', False), ('unchanged', 'pillow', False),
    ('grayscale_ignore_orientation', 'cv2', False), ('color_ignore_orientation', 'pillow', False)])
def test_images_are_turned_as_their_loader_turns_them(own_data, color_type, backend, is_turned):
    """In each case, the label has the size that the loader gives the image."""
    turned(own_data / 'img_dir' / 'train' / '007.png', rotate=is_turned)
    loader = dict(type='LoadImageFromFile', color_type=color_type, imdecode_backend=backend)
    data = dataset(own_data, pipeline=[loader, *PIPELINE[1:]])
    assert data.pipeline.transforms[0](data.get_data_info(7))['img'].shape[:2] == (48, 64)
    counts = scan(data)
    assert counts.channels.tolist() == [1 if color_type.startswith('gray') else 3] * 24


def with_text(path) -> None:
    """A PNG with more compressed text than Pillow reads."""
    info = PngImagePlugin.PngInfo()
    info.add_text('history', 'a' * 2_000_000, zip=True)
    Image.open(path).save(path, pnginfo=info)


def test_a_png_with_much_text_is_read(own_data):
    before = scan_labels(dataset(own_data))
    with_text(own_data / 'img_dir' / 'train' / '002.png')
    with pytest.raises(ValueError):
        Image.open(own_data / 'img_dir' / 'train' / '002.png').load()
    assert (scan_labels(dataset(own_data)) == before).all()


def test_what_only_pillow_limits_is_read_or_named(own_data, monkeypatch):
    """Images by OpenCV; labels and what Pillow is to load are named with what it says."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    by_cv2 = [PIPELINE[0], dict(type='LoadAnnotations', imdecode_backend='cv2'), PIPELINE[2]]
    assert scan(dataset(own_data, pipeline=by_cv2)).channels.tolist() == [3] * 24
    with pytest.raises(FedSegError, match=r'the label .*ann_dir/train/000.png .* cannot be loaded: DecompressionBomb'):
        scan(dataset(own_data))
    by_pillow = [dict(type='LoadImageFromFile', imdecode_backend='pillow'), *by_cv2[1:]]
    with pytest.raises(FedSegError, match=r'the image .*img_dir/train/000.png cannot be loaded: DecompressionBomb'):
        scan(dataset(own_data, pipeline=by_pillow))


def test_void_and_images_without_labels(own_data):
    assert scan(dataset(own_data)).void.tolist() == [4 * 64] * 24
    only_images = [PIPELINE[0], PIPELINE[2]]
    with pytest.raises(FedSegError, match='the pipeline loads no labels: add LoadAnnotations to it'):
        scan(dataset(own_data, pipeline=only_images))
    counts = scan(dataset(own_data, pipeline=only_images), labelled=False)
    assert counts.classes.sum() == 0 and counts.channels.tolist() == [3] * 24
