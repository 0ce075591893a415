import subprocess
import sys

import numpy as np
import pytest

from fedseg_mm import FedSegError
from fedseg_mm.datasets import IIDPartitioner

#: 23 images; the last three show nothing; class 2 is in every fourth.
COUNTS = np.zeros((23, 4), np.int64)
COUNTS[:20, 0] = 7
COUNTS[:20:2, 1] = 5
COUNTS[:20:4, 2] = 3
COUNTS[1:20:2, 3] = 1


def test_every_image_that_shows_a_class_is_dealt_out_once_and_evenly():
    partition = IIDPartitioner(6).partition(COUNTS)
    assert sorted(index for shard in partition.clients for index in shard.indices) == list(range(20))
    assert sorted(len(shard.indices) for shard in partition.clients) == [3, 3, 3, 3, 4, 4]
    assert {shard.classes for shard in partition.clients} == {(0, 1, 2, 3)}
    assert partition.made_by == dict(type='IIDPartitioner', num_clients=6, classes_per_client=None, seed=0)


@pytest.mark.parametrize('seed', range(5))
def test_annotated_classes_are_shown_and_balanced(seed):
    counts = np.ones((40, 10), np.int64)
    partition = IIDPartitioner(20, classes_per_client=2, seed=seed).partition(counts)
    annotators = np.bincount([cls for shard in partition.clients for cls in shard.classes], minlength=10)
    assert annotators.tolist() == [4] * 10
    partition = IIDPartitioner(5, classes_per_client=3, seed=seed).partition(COUNTS)
    for shard in partition.clients:
        shown = np.flatnonzero(COUNTS[list(shard.indices)].any(0))
        assert set(shard.classes) <= set(shown.tolist()) and len(shard.classes) == min(3, len(shown))


def test_same_seed_same_partition_in_another_process():
    code = ('import fedseg_mm, numpy as np\nfrom fedseg_mm.datasets import DirichletPartitioner, IIDPartitioner\n'
            'from tests.test_datasets.test_partitioners.test_iid_partitioner import COUNTS\n'
            'print(IIDPartitioner(6, 2, seed=4).partition(COUNTS).hash, '
            'DirichletPartitioner(6, 0.5, seed=4).partition(COUNTS).hash)')
    other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    from fedseg_mm.datasets import DirichletPartitioner
    np.random.seed(99)
    assert other == [IIDPartitioner(6, 2, seed=4).partition(COUNTS).hash,
                     DirichletPartitioner(6, 0.5, seed=4).partition(COUNTS).hash]
    assert IIDPartitioner(6, 2, seed=5).partition(COUNTS).hash != other[0]


@pytest.mark.parametrize('arguments, message', [
    (dict(num_clients=21), 'num_clients=21 is more than the 20 images'),
    (dict(num_clients=2, classes_per_client=5), 'classes_per_client=5 is more than the 4 classes'),
    (dict(num_clients=0), '`num_clients` of IIDPartitioner must be an integer of at least 1'),
    (dict(num_clients=2, classes_per_client=1.5), '`classes_per_client` of IIDPartitioner must be an integer'),
    (dict(num_clients=True), 'must be an integer'),
])
def test_what_cannot_be_split_is_refused(arguments, message):
    with pytest.raises(FedSegError, match=message):
        IIDPartitioner(**arguments).partition(COUNTS)
