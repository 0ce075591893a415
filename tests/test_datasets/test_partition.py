import dataclasses
import json

import pytest

from fedseg_mm import FedSegError
from fedseg_mm.datasets import ClientShard, Partition

PARTITION = Partition((ClientShard((0, 2), (1, )), ClientShard((1, ), (0, 3))), 3, 4, dict(type='ByHand'))


def test_round_trip(tmp_path):
    PARTITION.save(tmp_path / 'deep' / 'partition.json')
    loaded = Partition.load(tmp_path / 'deep' / 'partition.json')
    assert loaded == PARTITION and loaded.hash == PARTITION.hash and loaded.made_by == dict(type='ByHand')
    assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['partition.json']


def test_manifest_is_readable(tmp_path):
    PARTITION.save(tmp_path / 'partition.json', ['a.png', 'b.png', 'c.png'])
    text = (tmp_path / 'partition.json').read_text()
    assert '{"client": 0, "classes": [1], "images": [0, 2], "files": ["a.png", "c.png"]}' in text.splitlines()[2]
    assert Partition.load(tmp_path / 'partition.json') == PARTITION
    assert json.loads(text)['hash'] == PARTITION.hash


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PARTITION.clients = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        PARTITION.clients[0].classes = ()


def test_hash_tells_partitions_apart():
    moved = Partition((ClientShard((0, ), (1, )), ClientShard((2, 1), (0, 3))), 3, 4)
    other_classes = Partition((ClientShard((0, 2), (1, )), ClientShard((1, ), (0, 2))), 3, 4)
    assert len({PARTITION.hash, moved.hash, other_classes.hash}) == 3


def test_spoiled_manifests_are_refused(tmp_path):
    path = tmp_path / 'partition.json'
    with pytest.raises(FedSegError, match='there is no partition manifest'):
        Partition.load(path)
    PARTITION.save(path)
    manifest = json.loads(path.read_text())
    for text, message in (('{', 'cannot be read'), ('[]', 'is not a partition manifest'),
                          (json.dumps({**manifest, 'num_images': 5}), 'was changed'),
                          (json.dumps({k: v for k, v in manifest.items() if k != 'clients'}), 'incomplete'),
                          (json.dumps({k: v for k, v in manifest.items() if k != 'hash'}), 'incomplete')):
        path.write_text(text)
        with pytest.raises(FedSegError, match=message):
            Partition.load(path)
