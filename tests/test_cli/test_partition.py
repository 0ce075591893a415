"""tools/fed_partition.py as a user runs it."""
import json

import cv2
import pytest

from fedseg_mm.cli.partition import main
from tests.conftest import assert_same_bits, run_tool, weights_of, write_config


def test_table_picture_and_manifest_that_trains_alike(tiny_data, tmp_path):
    config = write_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 1})
    done = run_tool('fed_partition', config, '--work-dir', tmp_path / 'look')
    assert done.returncode == 0, done.stderr
    rows = [line.split('|') for line in done.stdout.splitlines() if '%' in line]
    assert len(rows) == 8 + 4  # clients and classes
    manifest = json.loads((tmp_path / 'look' / 'partition.json').read_text())
    for row, client in zip(rows, manifest['clients']):
        assert [cell.strip() for cell in row[1:4]] == [str(client['client']), str(len(client['images'])),
                                                       ', '.join(client['classes'])]
    height, width, _ = cv2.imread(str(tmp_path / 'look' / 'partition.png')).shape
    assert height > 300 and width > 600
    assert 'img_dir/train/000.png' in (tmp_path / 'look' / 'partition.json').read_text()

    for name, partitioner in (('made', []), ('read', [f'federated.partitioner={tmp_path}/look/partition.json'])):
        done = run_tool('fed_train', config, '--work-dir', tmp_path / name, '--cfg-options', 'randomness.seed=3',
                        *partitioner)
        assert done.returncode == 0, done.stdout + done.stderr
        assert manifest['hash'][:12] in done.stdout
    assert_same_bits(*(weights_of(tmp_path / name / 'round_1.pth') for name in ('made', 'read')))


def test_warnings_before_training(tiny_data, tmp_path, capsys):
    config = write_config(tiny_data, tmp_path, **{
        'federated.partitioner': dict(type='DirichletPartitioner', num_clients=20, alpha=0.1, classes_per_client=1),
        'train_dataloader.batch_size': 4})
    main([config])
    printed = capsys.readouterr().out
    assert 'Warning: ' in printed and 'one image: seen twice' in printed
    assert 'fewer images than a batch of 4' in printed


@pytest.mark.parametrize('changes, sentence', [
    ({'federated': None}, 'has no `federated = dict(...)`'),
    ({'federated.clients_per_round': 9}, 'federated.clients_per_round=9 must be between 1 and'),
    ({'federated.algorithm': dict(type='FedProxy')}, 'did you mean `FedProx`?'),
    ({'train_dataloader': None}, 'has no `train_dataloader`'),
    ({'federated.partitioner': 'nowhere.json'}, 'there is no partition manifest nowhere.json'),
    ({'federated.partitioner': dict(type='IIDPartitioner', clients=3)}, 'unknown key `clients`'),
    ({'federated.partitioner': dict(type='IIDPartitioner', num_clients=25)}, 'is more than the 24 images'),
    ({'train_dataloader.dataset.metainfo': None}, 'has no class names'),
])
def test_mistakes_are_one_sentence(tiny_data, tmp_path, changes, sentence):
    with pytest.raises(SystemExit) as stop:
        main([write_config(tiny_data, tmp_path, **changes)])
    assert sentence in stop.value.code and '\n' not in stop.value.code
