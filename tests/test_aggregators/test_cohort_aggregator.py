"""What all aggregators have in common, and above all those that keep a round's updates."""
import gc
import weakref

import numpy as np
import pytest
import torch
from mmengine.dist import get_rank

import fedseg_mm.aggregators.cohort_aggregator
from fedseg_mm.aggregators import (
    CohortAggregator,
    CoordinateMedian,
    GeometricMedian,
    Krum,
    MultiKrum,
    NormClippedMean,
    TrimmedMean,
    WeightedMean,
)
from tests.test_aggregators.references import (
    COMPARED,
    aggregate,
    assert_close,
    assert_same,
    make_update,
    make_updates,
    weighted_sum,
)

KEEPING = [CohortAggregator, CoordinateMedian, GeometricMedian, TrimmedMean, lambda: TrimmedMean(0.3), lambda: Krum(1),
           lambda: MultiKrum(1, 3)]
ALL = [*KEEPING, lambda: NormClippedMean(6.0), WeightedMean]


def test_the_base_is_the_weighted_mean():
    updates, weights = make_updates(5), [3, 1, 4, 1, 5]
    assert_close(aggregate(CohortAggregator(), updates, weights), weighted_sum(updates, np.array(weights) / 14))


@pytest.mark.parametrize('make', [CohortAggregator, CoordinateMedian, GeometricMedian, lambda: TrimmedMean(0.4),
                                  lambda: NormClippedMean(1e9), WeightedMean])
def test_one_update_passes_through_bit_for_bit(make):
    aggregator = make()
    for seed in range(3):
        update = {**make_update(seed), 'zero': torch.tensor([-0.0])}
        result = aggregate(aggregator, [update], [13], make_update(50) | dict(zero=torch.ones(1)))
        assert_same(result, update)
        assert torch.signbit(result['zero'])


@pytest.mark.parametrize('make', ALL)
def test_integers_stay_integers_and_the_greatest_is_kept(make):
    updates = [dict(w=torch.full((2, ), 1.0 + 0.01 * i), n=torch.tensor([-7 - i, i])) for i in range(5)]
    result = aggregate(make(), updates, compared=['w'])['n']
    assert result.dtype == torch.int64
    if isinstance(make(), MultiKrum):  # of those selected
        assert result.tolist() in ([-7 - i, j] for i in range(5) for j in range(i, 5))
    else:
        assert result.tolist() == [-7, 4]


@pytest.mark.parametrize('make', ALL)
def test_rounds_are_independent_and_reuse_is_honoured(make):
    """A result is right whatever went before, and goes into the tensors that were handed in one round earlier."""
    expected = aggregate(make(), make_updates(6, 20), [1, 2, 3, 4, 5, 6], make_update(77))
    aggregator = make()
    first = aggregate(aggregator, make_updates(7), reference=make_update(70))
    assert aggregator.total == 0
    handed = {name: torch.full_like(tensor, 99) for name, tensor in first.items()}
    second = aggregate(aggregator, make_updates(6, 10), reference=make_update(71), reuse=handed)
    assert all((tensor == 99).all() for tensor in handed.values())  # an algorithm reads the old weights after this
    result = aggregate(aggregator, make_updates(6, 20), [1, 2, 3, 4, 5, 6], make_update(77), reuse=first)
    assert all(result[name] is handed[name] for name in handed)
    assert_same(result, expected)
    assert len({tensor.data_ptr() for given in (first, second, result) for tensor in given.values()
                if tensor.numel()}) == 3 * (len(result) - 1)


@pytest.mark.parametrize('make', KEEPING)
def test_updates_are_copied_and_released(make):
    """Live tensors may change after they were added; the copies go with the round."""
    updates, aggregator = make_updates(6), make()
    expected = aggregate(make(), updates, reference=make_update(77))
    aggregator.begin(make_update(77), COMPARED)
    live = {name: tensor.clone() for name, tensor in updates[0].items()}
    for update in updates:
        for name, tensor in live.items():
            tensor.copy_(update[name])
        aggregator.add(live, 1)
    for tensor in live.values():
        tensor.zero_()
    copies = [weakref.ref(vector) for update in aggregator._updates for vector in update.values()]
    assert sum(len(ref()) for ref in copies) == 6 * sum(tensor.numel() for tensor in live.values())
    assert_same(aggregator.result(), expected)
    gc.collect()
    assert not any(ref() is not None for ref in copies)


@pytest.mark.parametrize('make', KEEPING)
def test_the_size_of_blocks_does_not_matter(make, monkeypatch):
    expected = aggregate(make(), make_updates(6), [3, 1, 4, 1, 5, 9], make_update(77))
    monkeypatch.setattr(fedseg_mm.aggregators.cohort_aggregator, 'BLOCK_SIZE', 20)
    result = aggregate(make(), make_updates(6), [3, 1, 4, 1, 5, 9], make_update(77))
    assert_close(result, {name: tensor.numpy() for name, tensor in expected.items()})


@pytest.mark.parametrize('make', KEEPING)
def test_names_may_come_in_any_order(make):
    updates = make_updates(6)
    shuffled = [{name: update[name] for name in np.random.RandomState(i).permutation(list(update)).tolist()}
                for i, update in enumerate(updates)]
    result, expected = (aggregate(make(), given, reference=make_update(77)) for given in (shuffled, updates))
    assert_same({name: result[name] for name in expected}, expected)


@pytest.mark.parametrize('make', ALL)
def test_begin_may_be_left_out(make):
    """Then updates start from zero, and all floating point tensors are compared."""
    aggregator, updates = make(), make_updates(6)
    for update in updates:
        aggregator.add(update, 1)
    assert aggregator.total == 6
    assert_same(aggregator.result(), aggregate(make(), updates, compared=None))


@pytest.mark.parametrize('make', ALL)
def test_misuse_is_refused(make):
    with pytest.raises(ValueError, match='no update'):
        make().result()
    for weight in (0, -1, float('nan')):
        with pytest.raises(ValueError, match='positive'):
            make().add(make_update(0), weight)


@pytest.mark.parametrize('make', [CoordinateMedian, GeometricMedian, lambda: TrimmedMean(0.25), lambda: Krum(2),
                                  lambda: MultiKrum(2), lambda: NormClippedMean(8.0)])
def test_malicious_updates_among_seven_honest_ones(make):
    """One client sends its change with the opposite sign, another a huge one."""
    reference = make_update(99)

    def moved(seed, scale=1.0):
        """A common change of length 4.8 over the compared tensors, and noise of its own of length 2.4."""
        change, noise = make_update(55), make_update(seed)
        return {name: reference[name] + scale * (0.4 * change[name] + 0.2 * noise[name])
                if reference[name].is_floating_point() else reference[name] for name in reference}

    honest = [moved(seed) for seed in range(7)]
    received = [*honest[:3], moved(7, -1.0), *honest[3:], moved(8, 1e4)]
    goal = aggregate(WeightedMean(), honest)

    def distance(result):
        return sum((result[name] - goal[name]).double().square().sum().item() for name in COMPARED)**0.5

    plain = distance(aggregate(WeightedMean(), received))
    robust = distance(aggregate(make(), received, reference=reference))
    assert plain > 5000 and robust < 2.6
    assert robust < distance(reference)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('make', ALL)
def test_on_a_gpu(make):
    updates, reference, weights = make_updates(6), make_update(77), [3, 1, 4, 1, 5, 9]
    expected = aggregate(make(), updates, weights, reference)
    there = [{name: tensor.cuda() for name, tensor in update.items()} for update in [reference, *updates]]
    result = aggregate(make(), there[1:], weights, there[0])
    assert all(tensor.is_cuda for tensor in result.values())
    assert_close({name: tensor.cpu() for name, tensor in result.items()},
                 {name: tensor.numpy() for name, tensor in expected.items()})


def combine_in_processes(rank, folder, counts):
    """What one of three processes does: takes its part of the updates in, and saves what it ends with."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank,
                                         world_size=len(counts))
    assert get_rank() == rank
    start = sum(counts[:rank])
    results = []
    for make in ALL:
        aggregator = make()
        for round in range(2):
            aggregator.begin(make_update(77), COMPARED)
            for i in range(start, start + counts[rank]):
                aggregator.add(make_update(i + 30 * round), 1 + i)
            aggregator.all_reduce(make_update(88))
            total = aggregator.total
            results.append((total, aggregator.result()))
    torch.save(results, f'{folder}/{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('counts', [(3, 0, 2), (0, 0, 6)])
def test_several_processes_equal_one(tmp_path, counts):
    """Also one without an update; and all end with the same bits."""
    torch.multiprocessing.start_processes(combine_in_processes, (tmp_path, counts), len(counts), start_method='fork')
    results = [torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in range(len(counts))]
    number = sum(counts)
    weights = list(range(1, number + 1))
    expected = [aggregate(make(), make_updates(number, 30 * round), weights, make_update(77))
                for make in ALL for round in range(2)]
    assert len(results[0]) == len(expected)
    for i, one in enumerate(expected):
        for total, result in (rank[i] for rank in results):
            assert total == sum(weights)
            assert_same(result, results[0][i][1])
            assert_close(result, {name: tensor.numpy() for name, tensor in one.items()})
