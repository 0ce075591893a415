"""A client's view: its classes, 254 elsewhere, void as it is; drawn for the first clients."""
import cv2
import numpy as np
from mmseg.registry import DATASETS

from fedseg_mm.cli.partition import main
from fedseg_mm.visualization.client_views import MOST_CLIENTS, client_view
from tests.conftest import tiny_config, write_config


def test_labels_are_masked_as_in_training(tiny_data, tmp_path):
    loader = tiny_config(tiny_data, tmp_path).train_dataloader
    dataset = DATASETS.build(loader.dataset)
    joined = DATASETS.build(dict(type='ConcatDataset', datasets=[loader.dataset, loader.dataset]))
    path = dataset.get_data_info(3)['seg_map_path']
    truth = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    kept = int(np.unique(truth[truth != 255])[0])
    image, label = client_view(dataset, 3, (kept, ), None)
    assert np.array_equal(label, np.where((truth == kept) | (truth == 255), truth, 254))
    assert np.array_equal(image[..., ::-1], cv2.imread(dataset.get_data_info(3)['img_path']))
    assert np.array_equal(client_view(joined, 24 + 3, (kept, ), None)[1], label)
    other = int(np.unique(truth[truth != 255])[1])
    assert (client_view(dataset, 3, range(4), other)[1] == 254).sum() == (truth == other).sum()


def test_show(tiny_data, tmp_path, capsys):
    config = write_config(tiny_data, tmp_path, **{'federated.partitioner.num_clients': MOST_CLIENTS + 2})
    main([config, '--show', '1'])
    assert f'{tmp_path}/clients.png (the first {MOST_CLIENTS})' in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / 'clients.png')).shape[1] > 400
    main([config, '--work-dir', str(tmp_path / 'plain')])
    assert not (tmp_path / 'plain' / 'clients.png').exists()
