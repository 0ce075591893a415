import dataclasses
import json

import pytest

from fedseg_mm import FedSegError
from fedseg_mm.datasets import ClientShard, Partition

CLASSES = ('sky', 'road', 'car', 'tree')
PARTITION = Partition((ClientShard((0, 2), (1, )), ClientShard((1, ), (0, 3), 'St Mary', 7)), 3, 4,
                      dict(type='ByHand'))


def test_manifest_is_readable(tmp_path):
    PARTITION.save(tmp_path / 'deep' / 'partition.json', ['a.png', 'b.png', 'c.png'], CLASSES)
    assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['partition.json']
    text = (tmp_path / 'deep' / 'partition.json').read_text()
    lines = text.splitlines()
    assert lines[2].strip() == '{"client": 0, "classes": ["road"], "images": ["a.png", "c.png"]},'
    assert lines[3].strip() == ('{"client": "St Mary", "classes": ["sky", "tree"], "unannotated": 7, '
                                '"images": ["b.png"]}')
    manifest = json.loads(text)
    assert manifest['hash'] == PARTITION.hash and manifest['made_by'] == dict(type='ByHand')
    assert manifest['class_names'] == list(CLASSES) and manifest['num_images'] == 3


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PARTITION.clients = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        PARTITION.clients[0].classes = ()


def test_hash_tells_partitions_apart():
    first, second = PARTITION.clients
    others = [
        Partition((ClientShard((0, ), (1, )), ClientShard((2, 1), (0, 3))), 3, 4),
        Partition((first, dataclasses.replace(second, classes=(0, 2))), 3, 4),
        Partition((first, dataclasses.replace(second, unannotated=6)), 3, 4),
        Partition((first, dataclasses.replace(second, unannotated=None)), 3, 4),
        Partition(PARTITION.clients, 4, 4),
    ]
    assert len({PARTITION.hash, *(other.hash for other in others)}) == 6
    renamed = Partition((first, dataclasses.replace(second, name='')), 3, 4)
    assert renamed.hash == PARTITION.hash


def test_hash_is_that_of_earlier_versions():
    """Checkpoints of 2026 hold it; a resume compares."""
    partition = Partition((ClientShard((0, 2), (1, )), ClientShard((1, ), (0, 3))), 3, 4)
    assert partition.hash.startswith('09c83c7d85895dbb')


def shards(*indices, classes=((0, ), (1, ))):
    return tuple(ClientShard(own, annotated, name) for own, annotated, name in zip(indices, classes, ('', 'St Mary')))


@pytest.mark.parametrize('clients, sentence', [
    (shards((0, 1), (1, 2)), 'client 0 and client St Mary both hold the image 1: every image may be listed only once'),
    (shards((0, 0), (2, )), 'client 0 has the image 0 twice'),
    (shards((0, ), (3, )), 'client St Mary has the image 3, but there are 3: the partition counts them from 0 to 2'),
    (shards((-1, ), (2, )), 'client 0 has the image -1'),
    (shards((0, ), (2, ), classes=((0, ), (4, ))), 'client St Mary has the class 4, but there are 4'),
    (shards((0, ), (2, ), classes=((0, 0), (1, ))), 'client 0 has the class 0 twice')])
def test_a_partition_is_checked_whoever_made_it(clients, sentence):
    with pytest.raises(FedSegError, match=f'^{sentence}'):
        Partition(clients, 3, 4)


def test_clients_may_share_classes_and_hold_nothing():
    assert len(Partition(shards((0, 2), (), classes=((0, 1), (1, 0))), 3, 4)) == 2
