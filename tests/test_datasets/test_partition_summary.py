import numpy as np
import pytest

from fedseg_mm.datasets import ClientShard, Partition, PartitionSummary

CLASSES = ('sky', 'road', 'car')
#: Six images; the last shows nothing.
COUNTS = np.array([[10, 0, 30], [20, 40, 0], [0, 5, 5], [1, 2, 0], [8, 0, 0], [0, 0, 0]])


def summary(*clients: ClientShard, counts=COUNTS, unannotated=None) -> PartitionSummary:
    unannotated = np.zeros(len(counts), np.int64) if unannotated is None else unannotated
    return PartitionSummary(Partition(clients, len(counts), 3), [f'{i}.png' for i in range(len(counts))], CLASSES,
                            counts, unannotated)


TWO = summary(ClientShard((0, 1), (0, 2)), ClientShard((2, 3, 4), (1, ), 'paul', 9),
              unannotated=np.array([0, 0, 70, 9, 0, 0]))


def test_figures():
    assert TWO.num_images.tolist() == [2, 3]
    assert TWO.annotated.tolist() == [[True, False, True], [False, True, False]]
    assert TWO.per_client(COUNTS).tolist() == [[30, 40, 30], [9, 7, 5]]
    assert TWO.unannotated_share.tolist() == [0.4, pytest.approx(1 - 7 / 100)]


def test_figures_are_those_of_client_by_client():
    rng = np.random.RandomState(0)
    counts = rng.randint(0, 4, (200, 3))
    parts = np.split(rng.permutation(200)[:150], np.sort(rng.randint(0, 150, 29)))  # some clients hold nothing
    shards = tuple(ClientShard(tuple(part.tolist()), tuple(np.flatnonzero(rng.rand(3) < 0.6).tolist()))
                   for part in parts)
    assert 0 in map(len, parts) and () in [shard.classes for shard in shards]
    many = summary(*shards, counts=counts, unannotated=counts[:, 0] + 1)
    for values in (counts, counts > 1, counts[:, 0]):
        expected = np.stack([values[part].sum(0) for part in parts])
        assert many.per_client(values).dtype == expected.dtype and (many.per_client(values) == expected).all()
    assert many.annotated.tolist() == [[cls in shard.classes for cls in range(3)] for shard in shards]
    assert many.num_images.tolist() == [len(part) for part in parts]
    assert summary(ClientShard((), (0, ))).per_client(COUNTS).tolist() == [[0, 0, 0]]


def test_tables():
    clients = [[cell.strip() for cell in row.split('|')[1:-1]] for row in TWO.client_table().splitlines() if '%' in row]
    assert clients == [['0', '2', 'sky, car', '40.0%'], ['paul', '3', 'road', '93.0%']]
    classes = [[cell.strip() for cell in row.split('|')[1:-1]] for row in TWO.class_table().splitlines() if '%' in row]
    assert classes == [['sky', '4', '1', f'{30 / 39:.1%}'], ['road', '3', '1', f'{7 / 47:.1%}'],
                       ['car', '2', '1', f'{30 / 35:.1%}']]
    clients = (ClientShard((k, ), (0, 1, 2)) for k in range(43))
    many = summary(*clients, counts=np.tile(COUNTS, (8, 1))).client_table()
    assert many.endswith('… and 3 more clients') and many.count('all 3') == 40


@pytest.mark.parametrize('clients, batch_size, sentences', [
    ((ClientShard((0, 1), (0, 2)), ClientShard((2, 3, 4), (1, ))), 2,
     ['1 image belongs to no client, because it shows no class.']),
    ((ClientShard((0, 1, 2), (0, 1)), ), 3, ['No client annotates car: the model cannot learn it.',
                                             '3 images belong to no client, 1 of them because it shows no class.']),
    ((ClientShard((0, ), (0, 2)), ClientShard((2, 3), (1, )), ClientShard((1, 4, 5), (0, ))), 4, [
        '1 client holds one image: seen twice per local epoch, with two augmentations, because batch normalisation '
        'cannot train on one image.',
        '2 clients hold fewer images than a batch of 4: one smaller batch is trained there per local epoch.']),
    ((ClientShard((0, 2), (0, 1, 2)), ClientShard((1, 3, 4, 5), (2, ), 'paul')), 2,
     ['No image of client paul shows a class that the client annotates.']),
])
def test_warnings(clients, batch_size, sentences):
    assert summary(*clients).warnings(batch_size) == sentences


def test_classes_that_nobody_annotates():
    sentences = summary(ClientShard(tuple(range(6)), (0, ))).warnings(2)
    assert sentences[0] == 'No client annotates road, car: the model cannot learn them.'


def test_a_class_that_no_image_shows():
    counts = COUNTS * np.array([1, 1, 0])
    sentences = summary(ClientShard(tuple(range(6)), (0, 1, 2)), counts=counts).warnings(2)
    assert sentences == ['No image shows car: the model cannot learn it.']


@pytest.mark.parametrize('classes, value, counts, warned', [
    ((1, ), 9, [0, 0, 0, 0, 0, 0], True),
    ((1, ), 9, [0, 0, 0, 1, 0, 0], False),
    ((1, ), 9, [5, 0, 0, 0, 0, 0], True),  # another client's image
    ((1, ), None, [0, 0, 0, 0, 0, 0], False),
    ((0, 1, 2), 9, [0, 0, 0, 0, 0, 0], False),  # what annotates all classes may have annotated all pixels
])
def test_a_value_that_no_mask_has(classes, value, counts, warned):
    clients = ClientShard((0, 1, 5), (0, 1, 2)), ClientShard((2, 3, 4), classes, 'paul', value)
    sentences = summary(*clients, unannotated=np.array(counts)).warnings(2)
    assert sentences == ['No mask of client paul contains the label that the manifest calls unannotated: give the '
                         'value that it has after reduce_zero_label and the like.'] * warned
