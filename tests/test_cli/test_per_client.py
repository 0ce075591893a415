"""`tools/test.py --per-client`: its figures are those of plain evaluations of the same images and weights."""
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from fedseg_mm.cli import test as tool
from fedseg_mm.cli.train import main as train
from fedseg_mm.evaluation import mean_iou, read_matrix
from tests.conftest import CLASSES, forget_runs, run_processes, write_config


@pytest.fixture(scope='module')
def trained(tiny_data, tmp_path_factory):
    """Trains once for each method."""
    folders = {}

    def trained(**algorithm):
        key = repr(sorted(algorithm.items()))
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp('run')
            train([write_config(tiny_data, folders[key], **{
                'federated.algorithm': algorithm, 'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 2})])
        return folders[key]

    return trained


def per_client(folder, *arguments, checkpoint=None, out='tested') -> dict:
    checkpoint = checkpoint or folder / 'round_2.pth'
    forget_runs()
    tool.main([str(folder / 'config.py'), str(checkpoint), '--per-client', '--work-dir', str(folder / out),
               *arguments])
    return json.loads(max((folder / out).glob('*/per_client.json')).read_text())


def figures_of(config, checkpoint, work_dir) -> dict:
    """What a plain evaluation says."""
    forget_runs()
    tool.main([str(config), str(checkpoint), '--work-dir', str(work_dir)])
    return json.loads(max(path for path in work_dir.glob('*/2*.json')).read_text())


def refused(*arguments, **keywords) -> str:
    with pytest.raises(SystemExit) as stop:
        per_client(*arguments, **keywords)
    return stop.value.code


def images_of(folder, client: int) -> list[str]:
    return json.loads((folder / 'partition.json').read_text())['clients'][client]['images']


def config_for(folder, images, path):
    """The config of a run, with some of the training images as its test set."""
    cfg = Config.fromfile(folder / 'config.py')
    (path.parent / 'list.txt').write_text('\n'.join(image.rsplit('/', 1)[-1].removesuffix('.png') for image in images))
    cfg.test_dataloader.dataset.update(
        ann_file=str(path.parent / 'list.txt'), data_prefix=cfg.train_dataloader.dataset.data_prefix)
    cfg.dump(path)
    return path


def test_the_global_model(trained, tmp_path):
    folder = trained(type='FedAvg')
    content = per_client(folder)
    assert len(content['clients']) == 8 and not any(client['own_model'] for client in content['clients'])
    for number in (0, 5):
        images, client = images_of(folder, number), content['clients'][number]
        assert client['images'] == len(images)
        config = config_for(folder, images, tmp_path / 'config.py')
        plain = figures_of(config, folder / 'round_2.pth', tmp_path / str(number))
        for name in ('mIoU', 'aAcc'):
            assert client['own_images'][name] == pytest.approx(plain[name], abs=0.006)
    plain = figures_of(folder / 'config.py', folder / 'round_2.pth', tmp_path / 'test')
    matrix, names = read_matrix(max((tmp_path / 'test').glob('*/confusion.csv')))
    assert names == list(CLASSES) and max((tmp_path / 'test').glob('*/confusion.png')).stat().st_size > 5000
    for client in content['clients']:
        own = [CLASSES.index(name) for name in client['annotated']]
        others = [cls for cls in range(4) if cls not in own]
        assert client['test_images']['mIoU'] == pytest.approx(plain['mIoU'], abs=0.006)
        assert client['test_images']['mIoU_annotated'] == mean_iou(matrix, own)
        assert client['test_images']['mIoU_never_annotated'] == mean_iou(matrix, others)
    values = {client['client']: client['own_images']['mIoU'] for client in content['clients']}
    spread = content['spread']['own_images']['mIoU']
    assert spread['min'] == values[spread['worst']] == min(values.values()) and spread['max'] == max(values.values())
    assert spread['std'] == pytest.approx(np.std(list(values.values())))
    said = max((folder / 'tested').glob('*/*.log')).read_text()
    assert 'mIoU on own images: mean' in said and 'mIoU on test images' not in said  # one figure for all
    assert 'worst' in max((folder / 'tested').glob('*/*.log')).read_text()


def test_two_processes_give_the_same_figures(trained):
    folder = trained(type='FedAvg')
    alone = per_client(folder)
    done = run_processes(2, 'test', folder / 'config.py', folder / 'round_2.pth', '--per-client', '--work-dir',
                         folder / 'two')
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(max((folder / 'two').glob('*/per_client.json')).read_text()) == alone


def test_clients_with_batch_normalisation_of_their_own(trained, tmp_path):
    folder = trained(type='FedBN')
    content = per_client(folder)
    own = [number for number, client in enumerate(content['clients']) if client['own_model']]
    states = {int(path.parent.name): path for path in sorted(folder.glob('clients/*/round_*.pth'))}
    assert own == sorted(states) and 0 < len(own) < 8
    checkpoint = torch.load(folder / 'round_2.pth', weights_only=False)
    checkpoint['state_dict'].update(torch.load(states[own[0]], weights_only=True)['weights'])
    torch.save(checkpoint, tmp_path / 'own.pth')
    plain = figures_of(folder / 'config.py', tmp_path / 'own.pth', tmp_path / 'test')
    assert content['clients'][own[0]]['test_images']['mIoU'] == pytest.approx(plain['mIoU'], abs=0.006)
    config = config_for(folder, images_of(folder, own[0]), tmp_path / 'config.py')
    plain = figures_of(config, tmp_path / 'own.pth', tmp_path / 'own')
    assert content['clients'][own[0]]['own_images']['mIoU'] == pytest.approx(plain['mIoU'], abs=0.006)
    other = next(number for number in range(8) if number not in own)
    plain = figures_of(folder / 'config.py', folder / 'round_2.pth', tmp_path / 'global')
    assert content['clients'][other]['test_images']['mIoU'] == pytest.approx(plain['mIoU'], abs=0.006)


def test_local_only_gives_the_figures_of_its_training(trained):
    folder = trained(type='LocalOnly')
    content = per_client(folder)
    line = json.loads(max(folder.glob('2*/vis_data/clients.json')).read_text().splitlines()[-1])
    for client, evaluated in zip(content['clients'], line['clients']):
        assert client['client'] == evaluated['client']
        assert client['test_images']['mIoU'] == pytest.approx(evaluated['mIoU'], abs=0.006)


def test_what_a_client_kept_is_missing(trained, tmp_path):
    folder = trained(type='FedBN')
    shutil.copy(folder / 'round_2.pth', tmp_path / 'moved.pth')
    sentence = refused(folder, checkpoint=tmp_path / 'moved.pth')
    assert 'clients lacks the state of client' in sentence and 'with the folder of the training beside it' in sentence


def test_another_partition_than_that_of_the_training(trained):
    sentence = refused(trained(type='FedAvg'), '--cfg-options', 'federated.partitioner.num_clients=4')
    assert 'was trained on the partition' in sentence and 'name the config of the training' in sentence


def test_not_with_test_time_augmentation(trained):
    sentence = refused(trained(type='FedAvg'), '--tta', '--cfg-options', 'tta_model.type=SegTTAModel',
                       'tta_pipeline=[]')
    assert sentence == 'test: --per-client cannot be combined with --tta: leave one of them out'


def test_unannotated_pixels_of_a_silo_and_classes_that_nobody_annotates(own_data, tmp_path):
    names = sorted(path.name for path in (own_data / 'img_dir' / 'train').iterdir())
    for name in names[12:]:  # the second client labels what it does not annotate with 77
        path = own_data / 'ann_dir' / 'train' / name
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where((label == 2) | (label == 255), label, 77).astype(np.uint8))
    images = [f'img_dir/train/{name}' for name in names]
    clients = [dict(client='clinic', images=images[:12], classes=['sky', 'road']),
               dict(client='harbour', images=images[12:], classes=['car'], unannotated=77)]
    (tmp_path / 'clients.json').write_text(json.dumps(dict(clients=clients)))
    folder = tmp_path / 'run'
    train([write_config(own_data, folder, **{
        'federated.partitioner': dict(_delete_=True, type='ManifestPartitioner',
                                      manifest=str(tmp_path / 'clients.json')),
        'federated.clients_per_round': 2, 'train_cfg.max_rounds': 2, 'train_cfg.val_interval': 2})])
    content = per_client(folder)
    assert [client['client'] for client in content['clients']] == ['clinic', 'harbour']
    assert content['clients'][1]['own_images']['mIoU_annotated'] is not None
    matrix, names = read_matrix(max((folder / 'tested').glob('*/confusion.csv')))
    lines = [json.loads(line) for path in folder.glob('2*/vis_data/scalars.json')
             for line in path.read_text().splitlines()]
    evaluated = next(line for line in lines if 'mIoU' in line)
    plain = json.loads(max(path for path in (folder / 'tested').glob('*/2*.json')).read_text())
    for figures in (evaluated, plain):
        assert figures['mIoU_annotated'] == pytest.approx(mean_iou(matrix, [0, 1, 2]), abs=0.006)
        assert figures['mIoU'] == pytest.approx(mean_iou(matrix), abs=0.006)
    said = max((folder / 'tested').glob('*/*.log')).read_text()
    assert '* No client annotates tree: mIoU_annotated is the mean over the other classes.' in said
    assert 'tree *' in said and 'road *' not in said
    assert any('IoU/tree' in line for line in lines)
