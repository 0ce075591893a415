"""What every partitioner promises, on data sets and with arguments of any kind."""
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedseg_mm import FedSegError
from fedseg_mm.datasets import ClassPartitioner, DirichletPartitioner, GroupPartitioner, IIDPartitioner

#: Pixels of each class in each image; many show nothing, or one class.
COUNTS = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12),
                elements=st.sampled_from([0, 0, 0, 1, 5]))
CLIENTS, CLASSES, SEEDS = st.integers(1, 13), st.integers(1, 6), st.integers(0, 2**32 - 1)
SOME_CLASSES = st.none() | CLASSES
IID = st.builds(IIDPartitioner, CLIENTS, SOME_CLASSES, SEEDS)
DIRICHLET = st.builds(DirichletPartitioner, CLIENTS, st.floats(0, 1e9, exclude_min=True) | st.just(0.5),
                      st.integers(1, 3), SOME_CLASSES, SEEDS)
GROUP = st.builds(GroupPartitioner, st.sampled_from([r'(\w)/', r'\d', 'a', '(x)?', 'a/|(b)/', '']), SOME_CLASSES, SEEDS)
CLASS = st.builds(ClassPartitioner, CLIENTS, CLASSES, SEEDS) | st.builds(
    ClassPartitioner, st.none(), CLASSES, SEEDS, st.integers(1, 3))


def names_of(counts) -> list[str]:
    return [f'{"abc"[i * i % 3]}/{i}.png' for i in range(len(counts))]


def is_refused(partitioner, counts) -> bool:
    """Whether the data set cannot be split so, as the docstrings say."""
    presence = counts > 0
    usable, shown = np.flatnonzero(presence.any(1)), int(presence.any(0).sum())
    classes, clients = partitioner.classes_per_client, partitioner.num_clients
    if (classes or 0) > counts.shape[1] or not len(usable):
        return True
    if isinstance(partitioner, GroupPartitioner):
        found = [re.search(partitioner.pattern, names_of(counts)[index]) for index in usable]
        return any(match is None or match[1 if match.re.groups else 0] is None for match in found)
    if isinstance(partitioner, ClassPartitioner):
        if partitioner.clients_per_class is not None:
            clients = partitioner.clients_per_class * shown
        if clients * classes < shown:
            return True
    return clients * getattr(partitioner, 'min_images', 1) > len(usable)


def split(partitioner, counts):
    """The partition, or None where it is refused."""
    try:
        return partitioner.partition(counts, names_of(counts), [f'class {cls}' for cls in range(counts.shape[1])])
    except FedSegError as error:
        assert str(error).isprintable()
        return None


@given(IID | DIRICHLET | GROUP | CLASS, COUNTS, st.integers(0, 2**32 - 1))
def test_every_image_has_one_client_that_annotates_what_it_shows(partitioner, counts, other_seed):
    refused = is_refused(partitioner, counts)
    partition = split(partitioner, counts)
    assert (partition is None) == refused
    if partition is None:
        return
    shows = [np.flatnonzero((counts > 0)[list(shard.indices)].any(0)).tolist() for shard in partition.clients]
    held = [index for shard in partition.clients for index in shard.indices]
    assert sorted(held) == np.flatnonzero((counts > 0).any(1)).tolist()
    for shard, shown in zip(partition.clients, shows):
        assert len(shard.indices) >= getattr(partitioner, 'min_images', 1)
        assert list(shard.indices) == sorted(shard.indices) and list(shard.classes) == sorted(set(shard.classes))
        if partitioner.classes_per_client is None:
            assert shard.classes == tuple(range(counts.shape[1]))
        else:
            assert set(shard.classes) <= set(shown)
            assert len(shard.classes) == min(partitioner.classes_per_client, len(shown))
        if isinstance(partitioner, ClassPartitioner):
            assert (counts[list(shard.indices)][:, list(shard.classes)] > 0).any(1).all()
    if isinstance(partitioner, IIDPartitioner):
        sizes = [len(shard.indices) for shard in partition.clients]
        assert max(sizes) - min(sizes) <= 1
    if isinstance(partitioner, GroupPartitioner):
        groups = [[names_of(counts)[index][0] for index in shard.indices] for shard in partition.clients]
        assert partitioner.pattern != r'(\w)/' or all(set(group) == {shard.name} for group, shard in zip(
            groups, partition.clients))
    else:
        assert len(partition) == partitioner.num_clients
    np.random.seed(other_seed)  # the global generator is nobody's
    again = split(partitioner, counts)
    assert again == partition and again.hash == partition.hash


#: What a config may hold by mistake.
ANYTHING = (st.none() | st.booleans() | st.integers(-3, 9) | st.integers() | st.just(10**400) | st.floats()
            | st.text(max_size=3) | st.binary(max_size=2) | st.lists(st.integers(), max_size=2)
            | st.dictionaries(st.text(max_size=1), st.integers(), max_size=1) | st.just(np.int64(3)) | st.just(1j))
ARGUMENTS = {
    IIDPartitioner: ('num_clients', 'classes_per_client', 'seed'),
    DirichletPartitioner: ('num_clients', 'alpha', 'min_images', 'classes_per_client', 'seed'),
    GroupPartitioner: ('pattern', 'classes_per_client', 'seed'),
    ClassPartitioner: ('num_clients', 'classes_per_client', 'seed', 'clients_per_class'),
}


@given(st.data(), st.sampled_from(list(ARGUMENTS)), COUNTS)
def test_arguments_of_any_kind_are_used_or_refused(data, kind, counts):
    arguments = dict(num_clients=2) if 'num_clients' in ARGUMENTS[kind] else dict(pattern=r'(\w)/')
    arguments.update(data.draw(st.dictionaries(st.sampled_from(ARGUMENTS[kind]), ANYTHING, min_size=1)))
    try:
        partition = split(kind(**arguments), counts)
    except FedSegError as error:
        assert str(error).isprintable()
        return
    assert partition is None or len(partition) >= 1
