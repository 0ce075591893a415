import cv2
import numpy as np
import pytest

from fedseg_mm.datasets import ClientShard, Partition, PartitionSummary
from fedseg_mm.visualization import draw_partition


@pytest.mark.parametrize('clients, classes', [(1, 1), (3, 11), (152, 19), (450, 150), (5003, 19)])
def test_federations_of_any_size(tmp_path, clients, classes):
    counts = np.random.RandomState(0).randint(0, 9, (2 * clients, classes))
    shards = tuple(ClientShard((2 * k, 2 * k + 1), (k % classes, ), 'mary' if k == 1 else '') for k in range(clients))
    draw_partition(PartitionSummary(Partition(shards, 2 * clients, classes), [''] * 2 * clients,
                                    tuple(f'class {c}' for c in range(classes)), counts,
                                    np.zeros(2 * clients, np.int64)), tmp_path / 'map.png')
    height, width, _ = cv2.imread(str(tmp_path / 'map.png')).shape
    assert 200 < height < 4000 and 600 < width < 8000
