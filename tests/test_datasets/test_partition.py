import dataclasses
import json

import pytest

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
