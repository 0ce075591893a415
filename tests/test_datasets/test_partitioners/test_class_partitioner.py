import subprocess
import sys

import numpy as np
import pytest

from fedseg_mm import FedSegError
from fedseg_mm.datasets import ClassPartitioner


def presence_like_cityscapes(seed: int = 0) -> np.ndarray:
    """2975 images, 19 classes of very different frequency, the rarest in 142 images."""
    rng = np.random.RandomState(seed)
    frequency = np.array([0.99, 0.95, 0.98, 0.33, 0.44, 0.99, 0.56, 0.94, 0.97, 0.56, 0.9, 0.79, 0.34, 0.95, 0.12,
                          0.093, 0, 0.17, 0.55])
    counts = (rng.rand(2975, 19) < frequency).astype(np.int64) * rng.randint(1, 1000, (2975, 19))
    counts[rng.permutation(2975)[:142], 16] = 5
    return counts


def assert_whole(partition, counts):
    """Every image once, at a client that annotates a class that the image shows."""
    held = np.concatenate([shard.indices for shard in partition.clients])
    assert sorted(held) == list(range(len(counts)))
    for shard in partition.clients:
        assert shard.indices and shard.classes
        assert (counts[list(shard.indices)][:, list(shard.classes)] > 0).any(1).all()


@pytest.mark.parametrize('seed', range(3))
def test_sizes_of_the_paper(seed):
    counts = presence_like_cityscapes(seed)
    partition = ClassPartitioner(num_clients=19, seed=seed).partition(counts)
    assert_whole(partition, counts)
    assert [shard.classes for shard in partition.clients] == [(c, ) for c in range(19)]
    sizes = [len(shard.indices) for shard in partition.clients]
    assert sizes[16] == 142 and sorted(sizes) == [142] + [156] * 17 + [181]
    assert (counts[:, np.argmax(sizes)] > 0).mean() > 0.9  # the remainder is on a frequent class

    eight_each = ClassPartitioner(num_clients=152, seed=seed).partition(counts)
    assert_whole(eight_each, counts)
    assert {len(shard.indices) for shard in eight_each.clients} == {17, 18, 19, 20, 22, 23}


def test_further_classes_are_among_those_shown():
    counts = presence_like_cityscapes()
    one, two = (ClassPartitioner(38, classes_per_client=n, seed=1).partition(counts) for n in (1, 2))
    assert_whole(two, counts)
    for first, shard in zip(one.clients, two.clients):
        assert len(shard.classes) == 2 and set(first.classes) < set(shard.classes)
        assert (counts[list(shard.indices)][:, list(shard.classes)] > 0).any(0).all()
    assert len({shard.classes for shard in two.clients}) > 19


def test_client_whose_images_show_fewer_classes_annotates_fewer():
    counts = np.array([[5, 0, 0], [0, 5, 5], [0, 5, 5]])
    clients = ClassPartitioner(3, classes_per_client=3).partition(counts).clients
    assert [shard.classes for shard in clients] == [(0, ), (1, 2), (1, 2)]


def test_classes_with_most_images_get_the_extra_clients():
    counts = np.zeros((20, 3), np.int64)
    counts[:4, 0] = counts[4:8, 1] = counts[8:, 2] = 1
    clients = ClassPartitioner(num_clients=4).partition(counts).clients
    assert [shard.classes for shard in clients] == [(0, ), (1, ), (2, ), (2, )]
    assert [len(shard.indices) for shard in clients] == [4, 4, 6, 6]
    clients = ClassPartitioner(num_clients=15).partition(counts).clients
    assert [sum(c in shard.classes for shard in clients) for c in range(3)] == [4, 4, 7]


def test_classes_that_always_appear_together_share():
    """The first one to choose would take all images and leave the other none."""
    counts = np.zeros((30, 3), np.int64)
    counts[:, 2] = 1
    counts[:8, :2] = 1
    sizes = [len(shard.indices) for shard in ClassPartitioner(3).partition(counts).clients]
    assert sizes == [4, 4, 22]


def test_starving_class_is_helped_through_a_third():
    """Class 2 only shares images with class 1, which only shares further ones with class 0."""
    counts = np.zeros((30, 3), np.int64)
    counts[:20, 0] = 1
    counts[10:30, 1] = 1
    counts[20:30, 2] = 1
    partition = ClassPartitioner(3, seed=3).partition(counts)
    assert_whole(partition, counts)
    assert [len(shard.indices) for shard in partition.clients] == [10, 10, 10]


def test_same_seed_same_partition_in_another_process():
    code = ('import fedseg_mm, numpy as np\n'
            'from fedseg_mm.datasets import ClassPartitioner\n'
            'from tests.test_datasets.test_partitioners.test_class_partitioner import presence_like_cityscapes\n'
            'print(ClassPartitioner(38, 2, seed=4).partition(presence_like_cityscapes()).hash)')
    other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
    counts = presence_like_cityscapes()
    np.random.seed(99)
    own = ClassPartitioner(38, 2, seed=4).partition(counts)
    assert own.hash == other
    assert ClassPartitioner(38, 2, seed=5).partition(counts).hash != other


def test_few_clients_hold_several_classes():
    counts = presence_like_cityscapes()
    one = ClassPartitioner(1, classes_per_client=19).partition(counts)
    assert one.clients[0].indices == tuple(range(2975)) and one.clients[0].classes == tuple(range(19))
    some = ClassPartitioner(5, classes_per_client=4).partition(counts)
    assert_whole(some, counts)
    assert {c for shard in some.clients for c in shard.classes} == set(range(19))


def test_images_without_a_class_belong_to_nobody():
    counts = np.array([[1, 0], [0, 0], [0, 1]])
    clients = ClassPartitioner(2).partition(counts).clients
    assert [shard.indices for shard in clients] == [(0, ), (2, )]


@pytest.mark.parametrize('arguments, message', [
    (dict(num_clients=4), 'more than the 3 images'),
    (dict(clients_per_class=2), 'clients_per_class=2 makes 4 clients, which is more than the 3 images .*: lower it'),
    (dict(num_clients=2, classes_per_client=3), 'more than the 2 classes'),
    (dict(num_clients=1), 'cannot cover 2 classes'),
])
def test_impossible_partitions_are_refused(arguments, message):
    with pytest.raises(FedSegError, match=message):
        ClassPartitioner(**arguments).partition(np.ones((3, 2), np.int64))


@pytest.mark.parametrize('arguments', [dict(num_clients=0), dict(num_clients=2.5), dict(num_clients=2, seed=-1),
                                       dict(num_clients=2, classes_per_client=0)])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(FedSegError, match='must be an integer'):
        ClassPartitioner(**arguments)
    with pytest.raises(FedSegError, match='integer array'):
        ClassPartitioner(2).partition(np.ones((3, 2)))
