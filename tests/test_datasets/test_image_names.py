from mmengine.dataset import ConcatDataset
from mmseg.datasets import BaseSegDataset

from fedseg_mm.datasets import StreetScenesDataset, image_names
from tests.conftest import make_images


def dataset(root, prefix='img_dir/train'):
    return BaseSegDataset(img_suffix='.png', metainfo=dict(classes=('a', )), data_root=root and str(root),
                          data_prefix=dict(img_path=str(prefix)))


def test_names_are_paths_below_the_folder(tmp_path, monkeypatch):
    for site in ('mary', 'paul'):
        make_images(tmp_path / site, 'train', 2)
    below = ['img_dir/train/000.png', 'img_dir/train/001.png']
    assert image_names(dataset(tmp_path / 'mary')) == below
    monkeypatch.chdir(tmp_path)
    assert image_names(dataset('mary')) == image_names(dataset('./paul/../mary')) == below
    assert image_names(dataset('mary', tmp_path / 'paul' / 'img_dir')) == [
        f'{tmp_path}/paul/img_dir/train/{name}' for name in ('000.png', '001.png')]
    assert image_names(dataset(None, 'mary/img_dir')) == [f'mary/img_dir/train/{n}' for n in ('000.png', '001.png')]
    both = ConcatDataset([dataset('paul'), dataset(tmp_path / 'mary')])
    assert image_names(both) == [f'{site}/{name}' for site in ('paul', 'mary') for name in below]


def test_addresses_are_whole():
    assert image_names(StreetScenesDataset(num_images=1)) == ['street_scenes://train/160x120/seed0/000000.png']
