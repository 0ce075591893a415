import random
from itertools import count

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, pseudo_collate
from mmseg.datasets import BaseSegDataset, MultiImageMixDataset

from fedseg_mm import FedSegError
from fedseg_mm.datasets import (
    ClientBatchSampler,
    ClientDataset,
    ClientShard,
    ClientStream,
    MaskToClient,
    Partition,
    Pass,
    SampleKey,
)
from tests.conftest import CLASSES, tiny_config

PARTITION = Partition((ClientShard(tuple(range(8)), (1, )), ClientShard((8, 9, 10), (0, 2)), ClientShard((11, ), (3, )),
                       ClientShard(tuple(range(12, 24)), (0, 1, 2, 3))), 24, 4)


def dataset(data, split='train', **kwargs):
    cfg = dict(tiny_config(data, data).train_dataloader.dataset)
    cfg.pop('type')
    cfg.update(data_prefix=dict(img_path=f'img_dir/{split}', seg_map_path=f'ann_dir/{split}'), **kwargs)
    return BaseSegDataset(**cfg)


def batch_sampler(batch_size=4, local_epochs=2, drop_last=True, seed=0):
    sampler = ClientBatchSampler(PARTITION.clients, batch_size, local_epochs, drop_last)
    sampler.seed = seed
    return sampler


def planned(sampler, *plan):
    sampler.plan = [Pass(*one) for one in plan]
    return list(sampler)


def stream(data, num_workers=0, **kwargs):
    return ClientStream(ClientDataset(dataset(data)), batch_sampler(**kwargs), num_workers, pseudo_collate)


def test_order_and_batches():
    batches = planned(batch_sampler(), (5, 0))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4] and batch_sampler().num_batches(0) == 4
    first, second = ([key.image for batch in batches[i:i + 2] for key in batch] for i in (0, 2))
    assert sorted(first) == sorted(second) == list(range(8)) and first != second
    assert len({key.seed for batch in batches for key in batch}) == 16
    assert {key.classes for batch in batches for key in batch} == {(1, )}


def test_batches_follow_from_seed_round_and_client_alone():
    alone = planned(batch_sampler(), (2, 3))
    assert planned(batch_sampler(), (2, 0), (2, 1), (2, 3))[-len(alone):] == alone
    assert planned(batch_sampler(), (1, 3)) != alone
    assert planned(batch_sampler(seed=1), (2, 3)) != alone


@pytest.mark.parametrize('client, batch_size, drop_last, sizes', [
    (0, 3, True, [3, 3]), (0, 3, False, [3, 3, 2]),
    (0, 7, False, [7]),  # never a single image
    (1, 8, True, [3]), (1, 8, False, [3]),  # fewer images than a batch: one smaller batch
    (2, 8, True, [2]), (2, 1, True, [1]),  # a single image is seen twice, unless batches of one are wanted
])
def test_sizes(client, batch_size, drop_last, sizes):
    sampler = batch_sampler(batch_size, 1, drop_last)
    batches = planned(sampler, (0, client))
    assert [len(batch) for batch in batches] == sizes and sampler.num_batches(client) == len(sizes)
    if client == 2 and batch_size > 1:
        assert batches[0][0].image == batches[0][1].image and batches[0][0].seed != batches[0][1].seed


def test_a_survey_sees_every_image_once_with_seeds_of_its_own():
    sampler = batch_sampler(batch_size=3)
    survey, training = planned(sampler, (5, 0, True)), planned(sampler, (5, 0))
    assert [[key.image for key in batch] for batch in survey] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert sampler.num_batches(0, survey=True) == 3
    assert not {key.seed for batch in survey for key in batch} & {key.seed for batch in training for key in batch}
    assert planned(sampler, (5, 0, True), (5, 0), (5, 2, True)) == survey + training + planned(sampler, (5, 2, True))
    assert [len(batch) for batch in planned(sampler, (5, 2, True))] == [1]  # a single image is seen once


def tensors(batches):
    return [(image, sample.gt_sem_seg.data) for batch in batches
            for image, sample in zip(batch['inputs'], batch['data_samples'])]


@pytest.mark.parametrize('workers', [2, 4])
def test_workers_do_not_change_samples(tiny_data, workers):
    plan = [(0, 0), (0, 1), (0, 3), (1, 0)]
    expected, other = stream(tiny_data), stream(tiny_data, workers)
    other.plan([Pass(0, client) for client in (0, 1, 3)])
    for one in (Pass(*place) for place in plan):
        for (image, label), (image2, label2) in zip(
                tensors(expected.batches(one)), tensors(other.batches(one)), strict=True):
            assert torch.equal(image, image2) and torch.equal(label, label2)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_plan_without_end_is_read_as_far_as_is_loaded_ahead(tiny_data, workers):
    """Workers go on with the next round's batches while this round's are trained on."""
    read, expected, other = [], stream(tiny_data), stream(tiny_data, workers)
    other.plan(read.append(round) or Pass(round, 1) for round in count())
    for round in range(3):
        for (image, _), (image2, _) in zip(tensors(expected.batches(Pass(round, 1))),
                                           tensors(other.batches(Pass(round, 1))), strict=True):
            assert torch.equal(image, image2)
        assert round + (workers > 0) <= max(read) <= round + 2 * workers  # two batches per worker
    assert read == sorted(set(read))


@pytest.mark.parametrize('workers', [0, 2])
def test_a_pass_that_is_left_midway_leaves_nothing_to_the_next(tiny_data, workers):
    expected, other = stream(tiny_data), stream(tiny_data, workers)
    other.plan(Pass(round, client) for round in range(2) for client in range(4))
    assert other.is_planned
    next(other.batches(Pass(0, 0)))
    for one in (Pass(0, 1), Pass(0, 2), Pass(1, 0)):
        for (image, _), (image2, _) in zip(tensors(expected.batches(one)), tensors(other.batches(one)), strict=True):
            assert torch.equal(image, image2)
    assert not other.is_planned


def test_labels_are_masked_to_the_client(tiny_data):
    for client, shard in enumerate(PARTITION.clients):
        labels = torch.cat([label.flatten() for _, label in tensors(stream(tiny_data).batches(Pass(0, client)))])
        assert set(labels.unique().tolist()) <= {*shard.classes, 254, 255}
        assert (labels == 254).any() == (len(shard.classes) < 4)


def test_crops_do_not_depend_on_the_mask(tiny_data):
    """Same key but other classes: same image, same void, and the label differs in nothing but the mask."""
    view = ClientDataset(dataset(tiny_data))
    one, all_ = (view[SampleKey(3, classes, 77)] for classes in ((0, ), (0, 1, 2, 3)))
    assert torch.equal(one['inputs'], all_['inputs'])
    label = all_['data_samples'].gt_sem_seg.data
    expected = torch.where((label == 0) | (label == 255), label, 254)
    assert torch.equal(one['data_samples'].gt_sem_seg.data, expected)


def test_global_generators_are_left_alone(tiny_data):
    view = ClientDataset(dataset(tiny_data))
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    view[SampleKey(0, (0, ), 1)]
    list(stream(tiny_data, 2).batches(Pass(0, 1)))
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_joined_data_sets(tiny_data):
    view = ClientDataset(ConcatDataset([dataset(tiny_data), dataset(tiny_data, 'test')]))
    assert len(view) == 28
    assert view[SampleKey(25, (0, ), 0)]['data_samples'].img_path.endswith('test/001.png')


def test_mask_is_the_last_before_packing_and_put_once(tiny_data):
    data = dataset(tiny_data)
    ClientDataset(ClientDataset(data).dataset)
    names = [type(transform).__name__ for transform in data.pipeline.transforms]
    assert names[-2:] == ['MaskToClient', 'PackSegInputs'] and names.count('MaskToClient') == 1


def test_mask_is_before_the_edge_map(tiny_data):
    """An edge map of the whole label would tell the client where other classes are."""
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    data = dataset(tiny_data, pipeline=[*load, dict(type='GenerateEdge', edge_width=2), dict(type='PackSegInputs')])
    view = ClientDataset(data)
    names = [type(transform).__name__ for transform in data.pipeline.transforms]
    assert names[2:] == ['RemapUnannotated', 'MaskToClient', 'GenerateEdge', 'PackSegInputs']
    one, all_ = (view[SampleKey(1, classes, 0)]['data_samples'] for classes in ((0, ), (0, 1, 2, 3)))
    assert one.gt_edge_map.data.sum() < all_.gt_edge_map.data.sum()


def test_mask_is_before_packing_wherever_that_is(tiny_data):
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    after = dict(type='RandomFlip', prob=0.0)
    data = dataset(tiny_data, pipeline=[*load, dict(type='PackSegInputs')])
    data.pipeline.transforms.append(lambda results: results)
    labels = ClientDataset(data)[SampleKey(3, (0, ), 0)]['data_samples'].gt_sem_seg.data
    assert set(labels.unique().tolist()) <= {0, 254, 255}
    with pytest.raises(FedSegError, match='has no PackSegInputs'):
        ClientDataset(dataset(tiny_data, pipeline=[*load, after]))


def test_mask_that_lost_its_client_is_an_error(tiny_data):
    data = dataset(tiny_data, pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                                        dict(type='PackSegInputs')])
    data.pipeline.transforms.insert(2, lambda results: {k: v for k, v in results.items() if k != 'annotated_classes'})
    with pytest.raises(FedSegError, match='dropped `annotated_classes`'):
        ClientDataset(data)[SampleKey(0, (0, ), 0)]


def test_mask_without_a_client_changes_nothing():
    label = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (MaskToClient()(dict(gt_seg_map=label))['gt_seg_map'] == label).all()
    masked = MaskToClient()(dict(gt_seg_map=label, annotated_classes=(3, 5)))['gt_seg_map']
    assert masked[0, 3] == 3 and masked[0, 5] == 5 and masked[15, 15] == 255 and (masked == 254).sum() == 253


def test_mixing_is_refused(tiny_data):
    mosaic = dict(type='RandomMosaic', prob=1.0, img_scale=(48, 64))
    with pytest.raises(FedSegError, match='RandomMosaic .* mixes images'):
        ClientDataset(dataset(tiny_data, pipeline=[dict(type='LoadImageFromFile'), mosaic]))
    nested = dict(type='RandomApply', transforms=[mosaic], prob=0.5)
    with pytest.raises(FedSegError, match='RandomMosaic .* mixes images'):
        ClientDataset(dataset(tiny_data, pipeline=[dict(type='LoadImageFromFile'), nested]))
    mixed = MultiImageMixDataset(ConcatDataset([dataset(tiny_data)]), [mosaic])
    with pytest.raises(FedSegError, match='MultiImageMixDataset cannot be federated'):
        ClientDataset(mixed)


@pytest.mark.parametrize('workers', [0, 2])
def test_image_that_vanished_is_named_in_one_sentence(own_data, workers):
    batches = stream(own_data, workers)
    (own_data / 'img_dir' / 'train' / '009.png').unlink()
    with pytest.raises(FedSegError, match=r'^the train pipeline fails on the image .*009.png') as error:
        list(batches.batches(Pass(0, 1)))
    assert '\n' not in str(error.value)


def test_length_is_one_iteration_per_round(tiny_data):
    assert len(stream(tiny_data).loader) == 1


def test_classes_of_the_data(tiny_data):
    assert ClientDataset(dataset(tiny_data)).metainfo['classes'] == CLASSES
