"""Manifests that somebody has changed by mistake or on purpose."""
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedseg_mm import FedSegError
from fedseg_mm.datasets import ManifestPartitioner
from fedseg_mm.datasets.image_names import ImageNames
from tests.mutations import changed_bytes, changed_trees
from tests.test_datasets.test_partitioners.test_partitioner_properties import CLASS, COUNTS, DIRICHLET, IID, split

CLASSES = ('sky', 'road', 'forêt')
NAMES = [f'{site}/{i}.png' for site in ('mary', 'café', 'site [A]') for i in range(3)]
BY_HAND = dict(clients=[dict(client='St Mary', images='mary', classes=['sky', 'forêt'], unannotated=7),
                        dict(images=['café/0.png', 'café/[12].png']),
                        dict(client='A', images='site [A]/*', classes='road')])


@pytest.fixture(scope='module')
def written(tmp_path_factory) -> dict:
    """What a training writes for the clients of BY_HAND, hash included."""
    path = tmp_path_factory.mktemp('manifest') / 'partition.json'
    path.with_name('hand.json').write_text(json.dumps(BY_HAND))
    partition_of(path.with_name('hand.json')).save(path, NAMES, CLASSES)
    return json.loads(path.read_text())


def partition_of(path: Path):
    return ManifestPartitioner(str(path)).partition(
        np.ones((len(NAMES), len(CLASSES)), np.int64), ImageNames(NAMES, '/data/set/'), CLASSES)


def read(name: str, content: bytes):
    """The partition that a manifest says, or None where it is refused in one sentence for each fault."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            partition = partition_of(path)
        except FedSegError as error:
            assert all(line.isprintable() and line for line in str(error).split('\n'))
            assert len(str(error)) < 5000
            return None
        held = [index for shard in partition.clients for index in shard.indices]
        assert len(set(held)) == len(held) and set(held) <= set(range(len(NAMES)))
        assert all(shard.indices and '\n' not in shard.name for shard in partition.clients)
        partition.save(path.with_name('again.json'), NAMES, CLASSES)  # what is read can be written
        again = partition_of(path.with_name('again.json'))
        assert again.hash == partition.hash and again.clients == partition.clients
        return partition


@given(CLASS | IID | DIRICHLET, COUNTS)
def test_what_any_partitioner_makes_comes_back(partitioner, counts):
    partition = split(partitioner, counts)
    if partition is None:
        return
    names, classes = [f'a/{i}.png' for i in range(len(counts))], [f'class {i}' for i in range(counts.shape[1])]
    with tempfile.TemporaryDirectory() as folder:
        partition.save(Path(folder, 'a.json'), names, classes)
        again = ManifestPartitioner(f'{folder}/a.json').partition(counts, names, classes)
    assert again == partition and again.hash == partition.hash


@pytest.mark.parametrize('suffix', ['.json', '.yaml'])
@given(data=st.data())
def test_a_changed_manifest_is_read_or_refused(written, suffix, data):
    """One with the hash is the partition that the hash is of, whatever was changed beside it."""
    tree = data.draw(changed_trees(data.draw(st.sampled_from([BY_HAND, written]))))
    text = json.dumps(tree) if suffix == '.json' else yaml.dump(tree, allow_unicode=True)
    partition = read(f'a{suffix}', text.encode('utf-8', 'surrogatepass'))
    if partition is not None and tree.get('hash') is not None:
        assert partition.hash == written['hash']


@pytest.mark.parametrize('suffix', ['.json', '.yaml'])
@given(data=st.data())
def test_a_damaged_manifest_is_read_or_refused(written, suffix, data):
    whole = json.dumps(written) if suffix == '.json' else yaml.safe_dump(BY_HAND)
    content = data.draw(changed_bytes(whole.encode()) | st.binary(max_size=30))
    for _ in range(data.draw(st.integers(0, 3))):
        content = data.draw(changed_bytes(content))
    read(f'a{suffix}', content)
