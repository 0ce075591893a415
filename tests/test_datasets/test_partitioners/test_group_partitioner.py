import numpy as np
import pytest

from fedseg_mm import FedSegError
from fedseg_mm.datasets import GroupPartitioner

NAMES = [f'leftImg8bit/train/{city}/{city}_{i:06d}_000019_leftImg8bit.png'
         for i in range(3) for city in ('ulm', 'aachen', 'bochum')]
COUNTS = np.ones((9, 2), np.int64)


@pytest.mark.parametrize('pattern, clients', [
    (r'train/(\w+)/', ['aachen', 'bochum', 'ulm']),
    (r'_00000\d_', ['_000000_', '_000001_', '_000002_'])])
def test_clients_are_groups_in_order(pattern, clients):
    partition = GroupPartitioner(pattern).partition(COUNTS, NAMES)
    assert [shard.name for shard in partition.clients] == clients
    assert sorted(index for shard in partition.clients for index in shard.indices) == list(range(9))
    assert {shard.classes for shard in partition.clients} == {(0, 1)}


def test_images_are_those_of_the_city():
    first = GroupPartitioner(r'train/(\w+)/', classes_per_client=1).partition(COUNTS, NAMES).clients[0]
    assert first.indices == (1, 4, 7) and len(first.classes) == 1


@pytest.mark.parametrize('pattern', ['(', None, 3])
def test_no_regular_expression_is_refused(pattern):
    with pytest.raises(FedSegError, match='is not a regular expression'):
        GroupPartitioner(pattern)


@pytest.mark.parametrize('pattern', ['aachen', '/(?:ulm|(aachen|bochum))/'])
def test_an_image_without_a_group_is_named(pattern):
    with pytest.raises(FedSegError, match='does not match the image leftImg8bit/train/ulm/ulm_000000'):
        GroupPartitioner(pattern).partition(COUNTS, NAMES)
