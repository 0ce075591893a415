"""Partitioners of a third party's: arguments that are passed on, and splits that are none."""
import numpy as np
import pytest

from fedseg_mm import FedSegError
from fedseg_mm.datasets import IIDPartitioner, Partitioner
from fedseg_mm.registry import PARTITIONERS, build
from tests.conftest import tiny_config
from tests.test_engine.test_federated_loop import train


@PARTITIONERS.register_module()
class Shuffled(IIDPartitioner):

    def __init__(self, times=1, **kwargs):
        super().__init__(**kwargs)
        self.shuffles = times  # under another name than the argument's


def test_arguments_that_are_passed_on(tiny_data, tmp_path):
    partitioner = dict(type='Shuffled', times=2, num_clients=4, seed=1)
    assert build(PARTITIONERS, partitioner, 'federated.partitioner').num_clients == 4
    runner = train(tiny_config(tiny_data, tmp_path, **{
        'federated.partitioner': partitioner, 'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9}))
    made_by = runner.train_loop.federation.partition.made_by
    assert made_by['type'] == 'Shuffled' and made_by['num_clients'] == 4 and made_by['seed'] == 1


@pytest.mark.parametrize('names, expected', [
    ([0, 1], ['', '']), ([7, 8], ['7', '8']), (['north', 'south'], ['north', 'south'])])
def test_names_of_clients_are_texts(names, expected):
    class Named(Partitioner):

        def split(self, usable, presence, image_names, rng):
            return list(zip(names, np.array_split(usable, 2)))

    partition = Named(2).partition(np.ones((6, 2), np.int64))
    assert [shard.name for shard in partition.clients] == expected


def test_two_clients_of_one_name_are_refused():
    """Their manifest could not be read."""
    class Twins(Partitioner):

        def split(self, usable, presence, image_names, rng):
            return [('A', part) for part in np.array_split(usable, 2)]

    with pytest.raises(FedSegError, match='two clients are named A: give each a name of its own'):
        Twins(2).partition(np.ones((6, 2), np.int64))


@pytest.mark.parametrize('parts, sentence', [
    ([[0, 1], [1, 2]], 'client A and client B both hold the image 1: every image may be listed only once'),
    ([[0, 1], [2, 2]], 'client B has the image 2 twice'),
    ([[0], [6]], 'Broken.split gives client B the image 6, but there are 6, counted from 0 to 5'),
    ([[0], [-1]], 'Broken.split gives client B the image -1, but there are 6'),
    ([[0], [1.5]], 'Broken.split gives client B an array of float64 with 1 dimensions'),
    ([[0], np.array([True] * 6)], 'Broken.split gives client B an array of bool'),
    ([[0], [[1, 2]]], 'an array of int64 with 2 dimensions'),
])
@pytest.mark.parametrize('classes_per_client', [None, 1])
def test_a_split_that_is_none_is_refused(parts, sentence, classes_per_client):
    class Broken(Partitioner):

        def split(self, usable, presence, image_names, rng):
            return list(zip('AB', parts))

    with pytest.raises(FedSegError, match=sentence):
        Broken(2, classes_per_client).partition(np.ones((6, 3), np.int64))


def test_a_list_or_a_range_will_do():
    class Halves(Partitioner):

        def split(self, usable, presence, image_names, rng):
            return [('A', range(3)), ('B', [5, 4, 3]), ('C', [])]

    partition = Halves(3).partition(np.ones((6, 3), np.int64))
    assert [shard.indices for shard in partition.clients] == [(0, 1, 2), (3, 4, 5), ()]
