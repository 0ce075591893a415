"""The configs of real data sets, on folder trees with their names and their kinds of files."""
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from fedseg_mm.cli.train import main
from tests.conftest import ROOT, run_tool, tiny_config
from tests.test_cli.test_tools import make_cityscapes, page_file

RNG = np.random.RandomState


def save(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(RNG(0).randint(256, size=768).astype(np.uint8).tobytes())
    image.save(path)


def blocks(values: np.ndarray, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """An image and a label of 60x80 with six random values."""
    label = np.kron(rng.choice(values, (2, 3)), np.ones((30, 27))).astype(np.uint8)[:, :80]
    return np.stack([label, 255 - label, label ^ 90], -1), label


def make_voc(root: Path) -> None:
    for split, number in (('train', 24), ('val', 3)):
        names = [f'2007_{split}_{i:06d}' for i in range(number)]
        for i, name in enumerate(names):
            image, label = blocks(np.r_[:21, 255], RNG(i))
            save(root / 'JPEGImages' / f'{name}.jpg', image)
            save(root / 'SegmentationClass' / f'{name}.png', label, palette=True)
        (root / 'ImageSets' / 'Segmentation').mkdir(parents=True, exist_ok=True)
        (root / 'ImageSets' / 'Segmentation' / f'{split}.txt').write_text('\n'.join(names) + '\n')


def make_ade20k(root: Path) -> None:
    for split, number in (('training', 24), ('validation', 3)):
        for i in range(number):
            image, label = blocks(np.arange(151), RNG(i))
            save(root / 'images' / split / f'ADE_{split}_{i:08d}.jpg', image)
            save(root / 'annotations' / split / f'ADE_{split}_{i:08d}.png', label)


def config_of(name: str, folder: Path, changes: dict) -> Path:
    """A federation of 6 clients with a small model and a small crop on one of the data sets' base configs."""
    cfg = Config.fromfile(ROOT / 'configs' / '_base_' / 'datasets' / f'{name}.py')
    cfg.merge_from_dict({**{
        'train_dataloader.num_workers': 0, 'train_dataloader.batch_size': 2, 'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False, 'train_dataloader.dataset.pipeline.2.scale': (80, 60),
        'train_dataloader.dataset.pipeline.3.crop_size': (48, 64)}, **changes})
    small = tiny_config(folder, folder / 'run')
    for key in ('model', 'optim_wrapper', 'default_hooks', 'log_processor', 'visualizer', 'default_scope',
                'custom_imports', 'work_dir', 'randomness'):
        cfg[key] = small[key]
    cfg.param_scheduler = []
    cfg.train_cfg = dict(type='FederatedTrainLoop', max_rounds=1)
    cfg.federated = dict(partitioner=dict(type='IIDPartitioner', num_clients=6), clients_per_round=2)
    path = folder / 'config.py'
    cfg.dump(path)
    return path


@pytest.mark.parametrize('name, make, variable, classes', [('voc_480x480', make_voc, 'FEDSEG_VOC', 20),
                                                           ('ade20k_480x480', make_ade20k, 'FEDSEG_ADE20K', 150)])
def test_voc_and_ade20k_train_and_evaluate(tmp_path, monkeypatch, name, make, variable, classes):
    make(tmp_path / 'data')
    monkeypatch.setenv(variable, str(tmp_path / 'data'))
    config = config_of(name, tmp_path, {})
    options = '--cfg-options', f'model.decode_head.num_classes={classes}'
    done = run_tool('fed_train', config, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '6 clients with 4 images each, 24 in all' in done.stdout and 'mIoU' in done.stdout
    assert 'background' not in done.stdout.split('Round 1:')[1]  # of the table of classes


def test_cityscapes_cities_are_clients(tmp_path):
    make_cityscapes(tmp_path / 'data')
    config = config_of('cityscapes_512x1024', tmp_path, {
        'train_dataloader.dataset.data_root': str(tmp_path / 'data'),
        'val_dataloader.dataset.data_root': str(tmp_path / 'data')})
    partitioner = "federated.partitioner._delete_=True federated.partitioner.type=GroupPartitioner".split()
    done = run_tool('fed_partition', config, '--cfg-options', *partitioner,
                    r'federated.partitioner.pattern=train/(\w+)/')
    assert done.returncode == 0, done.stderr
    rows = [line.split()[1:6:2] for line in done.stdout.splitlines() if 'all 19' in line]
    assert rows == [['aachen', '16', 'all'], ['bremen', '16', 'all']]
    assert '2 clients, 32 of 32 images, 16 per client' in done.stdout


def make_segnet_camvid(root: Path) -> None:
    for split, number in (('train', 8), ('val', 4), ('test', 2)):
        for i in range(number):
            image, label = blocks(np.arange(12), RNG(i))
            save(root / split / f'0001TP_{i:06d}.png', image)
            save(root / f'{split}annot' / f'0001TP_{i:06d}.png', label)


def test_prepared_camvid_trains(tmp_path, monkeypatch):
    make_segnet_camvid(tmp_path / 'CamVid')
    done = run_tool('prepare_camvid', tmp_path / 'CamVid', tmp_path / 'camvid')
    assert done.returncode == 0 and f'8 train, 4 val, 2 test images are in {tmp_path}/camvid' in done.stdout
    for i in range(8):
        before, after = (np.array(Image.open(tmp_path / folder / f'0001TP_{i:06d}.png'))
                         for folder in ('CamVid/trainannot', 'camvid/ann_dir/train'))
        assert (after[before < 11] == before[before < 11]).all() and (after[before == 11] == 255).all()
    monkeypatch.setenv('FEDSEG_CAMVID', str(tmp_path / 'camvid'))
    config = ROOT / 'configs' / 'fedavg' / 'upernet_camvid160x120_noniid1_backce.py'
    done = run_tool('fed_partition', config, '--work-dir', tmp_path / 'run', '--cfg-options',
                    'federated.partitioner.num_clients=11')
    assert done.returncode == 0, done.stderr
    assert '11 clients, 12 of 12 images' in done.stdout


def test_what_is_not_the_segnet_camvid_is_refused(tmp_path):
    done = run_tool('prepare_camvid', tmp_path, tmp_path / 'camvid')
    assert done.returncode == 1 and f'there are no PNG images in {tmp_path}/train' in done.stderr
    make_segnet_camvid(tmp_path / 'CamVid')
    save(tmp_path / 'CamVid' / 'valannot' / '0001TP_000002.png', np.full((60, 80), 12, np.uint8))
    done = run_tool('prepare_camvid', tmp_path / 'CamVid', tmp_path / 'camvid')
    assert done.returncode == 1 and 'valannot/0001TP_000002.png does not hold one of the values 0 to 11' in done.stderr
    assert 'Traceback' not in done.stderr


def make_own_folder(root: Path) -> None:
    for split, number in (('train', 30), ('val', 3)):
        for i in range(number):
            image, label = blocks(np.r_[:5, 255], RNG(i))
            save(root / 'images' / split / f'{i:03d}.jpg', image)
            save(root / 'masks' / split / f'{i:03d}.png', label)


@pytest.fixture
def own_folder(tmp_path) -> Path:
    make_own_folder(tmp_path / 'data')
    return tmp_path


def own_config(folder: Path, **changes) -> Path:
    own = dict(data_root=str(folder / 'data'), metainfo=dict(classes=['road', 'car', 'tree', 'sky', 'person']))
    config = config_of('own_folder_512x512', folder, {
        **{f'{loader}.dataset.{key}': value for loader in ('train_dataloader', 'val_dataloader')
           for key, value in own.items()},
        'val_dataloader.dataset.pipeline.1.scale': (80, 60)})
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({'model.decode_head.num_classes': 5, **changes})
    cfg.dump(config)
    return config


def refuse(config: Path) -> str:
    """Train what cannot be trained; returns the sentences, one for each file at fault."""
    with pytest.raises(SystemExit) as stop:
        main([str(config)])
    assert isinstance(stop.value.code, str)
    assert all(line.startswith('fed_train: ') for line in stop.value.code.splitlines())
    return stop.value.code


def rewrite(folder: Path, change) -> None:
    for path in (folder / 'data' / 'masks').rglob('*.png'):
        label = np.array(Image.open(path))
        path.unlink()
        change(path, label)


@pytest.mark.parametrize('change', [
    lambda path, label: save(path, label),
    lambda path, label: save(path, label, palette=True),
    lambda path, label: save(path, label.astype(np.uint16)),
], ids=['8 bit', 'palette', '16 bit'])
def test_own_folder_trains(own_folder, change):
    rewrite(own_folder, change)
    done = run_tool('fed_train', own_config(own_folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert '6 clients with 5 images each, 30 in all' in done.stdout and 'person' in done.stdout


@pytest.mark.parametrize('change, sentence', [
    (lambda path, label: save(path, label.astype(np.uint16) * 300), 'masks/train/000.png holds the value'),
    (lambda path, label: save(path, np.stack([label] * 3, -1)), 'painted colours must be turned into indices'),
    (lambda path, label: save(path, label[:50]), 'is 80x50 pixels, but its image'),
    (lambda path, label: path.name != '007.png' and save(path, label), 'masks/train/007.png of image'),
], ids=['16 bit values', 'painted', 'other size', 'without mask'])
def test_own_folder_that_cannot_be_trained_on(own_folder, change, sentence):
    rewrite(own_folder, change)
    assert sentence in refuse(own_config(own_folder))


SILO = """
clients:
- client: St Mary
  images: images/train/00*.jpg
  classes: [road, car]
  unannotated: 9
- client: Charité
  images: [images/train/010.jpg, images/train/011.jpg, images/train/012.jpg]
  classes: [tree]
"""


def test_a_hand_written_silo_trains(own_folder):
    """Client 0's masks say 9 where it did not annotate; images of no client are not looked at."""
    for i in range(10):
        path = own_folder / 'data' / 'masks' / 'train' / f'{i:03d}.png'
        label = np.array(Image.open(path))
        save(path, np.where((label > 1) & (label < 255), 9, label).astype(np.uint8))
    (own_folder / 'data' / 'masks' / 'train' / '020.png').unlink()
    (own_folder / 'silo.yaml').write_text(SILO, encoding='utf-8')
    done = run_tool('fed_train', own_config(own_folder, **{'federated.partitioner': str(own_folder / 'silo.yaml')}))
    assert done.returncode == 0, done.stdout + done.stderr
    assert '2 clients with 3 to 10 images each, 13 in all' in done.stdout
    assert 'No client annotates sky, person' in done.stdout and '17 images belong to no client' in done.stdout


def test_a_silo_that_names_a_missing_file(own_folder):
    (own_folder / 'silo.yaml').write_text(SILO.replace('012.jpg', '112.jpg'), encoding='utf-8')
    sentence = refuse(own_config(own_folder, **{'federated.partitioner': str(own_folder / 'silo.yaml')}))
    assert 'silo.yaml lists images/train/112.jpg, but the data set has no such image or folder' in sentence


def test_the_documentations_own_images_and_clients(own_folder):
    """Word by word, on a small crop and without pretrained weights."""
    images, clients = page_file('data.md', 'my_images.py'), page_file('clients.md', 'clients.yaml')
    (own_folder / 'my_images.py').write_text(images)
    (own_folder / 'clients.yaml').write_text(clients, encoding='utf-8')
    (own_folder / 'data').rename(own_folder / 'mine')
    (own_folder / 'data').mkdir()
    (own_folder / 'mine').rename(own_folder / 'data' / 'mine')
    for kind, suffix in (('images', 'jpg'), ('masks', 'png')):
        folder = own_folder / 'data' / 'mine' / kind / 'train'
        for client, numbers in (('st_mary', range(8)), ('charite', range(8, 16))):
            (folder / client).mkdir()
            for i in numbers:
                (folder / f'{i:03d}.{suffix}').rename(folder / client / f'{i:03d}.{suffix}')
    small = ['model.pretrained=None', 'model.data_preprocessor.size=(48,64)', 'train_dataloader.batch_size=2',
             'train_dataloader.dataset.pipeline.2.scale=(80,60)', 'train_dataloader.num_workers=0',
             'train_dataloader.dataset.pipeline.3.crop_size=(48,64)', 'val_dataloader.num_workers=0',
             'val_dataloader.persistent_workers=False', 'val_dataloader.dataset.pipeline.1.scale=(80,60)',
             'federated.clients_per_round=1', 'federated.local_epochs=1', 'train_cfg.max_rounds=1']
    for partitioner, sentence in ((['federated.partitioner.num_clients=5'], '5 clients with'),
                                  (['federated.partitioner=clients.yaml'], '2 clients with 8 images each, 16 in all')):
        done = run_tool('fed_train', 'my_images.py', '--work-dir', 'run', '--cfg-options', *small, *partitioner,
                        cwd=own_folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert sentence in done.stdout
