import numpy as np
import pytest
import torch

from fedseg_mm import FedSegError
from fedseg_mm.aggregators import Krum, MultiKrum
from tests.test_aggregators.references import (
    aggregate,
    assert_close,
    assert_same,
    krum_scores,
    make_update,
    make_updates,
    vectors,
    weighted_sum,
)


def points(*values):
    return [dict(w=torch.tensor([value]), n=torch.tensor(i)) for i, value in enumerate(values)]


def test_hand_computed():
    """Of 0, 1, 3, 4.5 and 50 with f = 1, each has the 2 nearest: scores 10, 5, 6.25, 14.5 and over 4000."""
    updates = points(0., 1., 3., 4.5, 50.)
    aggregator = MultiKrum(num_malicious=1, num_selected=3)
    aggregator.begin(None, ['w'])
    for update in updates:
        aggregator.add(update, 1)
    assert aggregator.scores()[:4].tolist() == [10, 5, 6.25, 14.5]
    result = aggregator.result()  # of 1, 3 and 0
    assert result['w'].item() == pytest.approx(4 / 3) and result['n'].item() == 2
    chosen = aggregate(Krum(num_malicious=1), updates, compared=['w'])
    assert chosen['w'].item() == 1 and chosen['n'].item() == 1


@pytest.mark.parametrize('with_reference', [False, True])
@pytest.mark.parametrize('num_malicious, num_selected', [(0, 1), (2, 1), (3, 1), (1, 4), (3, 9), (2, None)])
def test_equals_the_definition_in_float64(num_malicious, num_selected, with_reference):
    updates, weights = make_updates(9), [21, 3, 1, 40, 22, 9, 17, 5, 8]
    scores = krum_scores(vectors(updates), num_malicious)
    selected = np.argsort(scores)[:num_selected or 9 - num_malicious]
    aggregator = Krum(num_malicious) if num_selected == 1 else MultiKrum(num_malicious, num_selected)
    result = aggregate(aggregator, updates, weights, make_update(77) if with_reference else None)
    assert_close(result, weighted_sum([updates[i] for i in selected], np.full(len(selected), 1 / len(selected))))
    assert result['num_batches_tracked'] == max(updates[i]['num_batches_tracked'] for i in selected)
    if num_selected == 1:  # the whole update, statistics included
        assert_same(result, updates[selected[0]])


def test_distances_are_measured_over_the_compared_tensors():
    updates = [dict(w=torch.tensor([value]), running_mean=torch.tensor([1000. * i]))
               for i, value in enumerate([0., 0.1, 0.2, 9., 9.5])]
    assert aggregate(Krum(1), updates, compared=['w'])['running_mean'].item() == 1000
    # of all tensors, the statistics decide: the one in their middle is chosen
    assert aggregate(Krum(1), updates, compared=None)['running_mean'].item() in (1000, 2000, 3000)


def test_huge_updates_do_not_blur_the_others():
    """A large norm must not cancel the digits that tell honest updates apart, wherever it arrives."""
    honest = [dict(w=torch.tensor([1 + 1e-3 * i, 1.])) for i in (0, 1, 2, 4, 8)]
    for place in (0, 3, 5):
        updates = honest[:place] + [dict(w=torch.tensor([1e30, -1e30]))] + honest[place:]
        for reference in (None, dict(w=torch.ones(2))):
            assert_same(aggregate(Krum(1), updates, reference=reference, compared=None), honest[2])


def test_order_does_not_matter_unless_scores_are_equal():
    updates = make_updates(9)
    assert_same(aggregate(Krum(2), updates[::-1]), aggregate(Krum(2), updates))
    assert aggregate(Krum(0), points(1., 0., 2., -1.), compared=['w'])['w'].item() == 1  # as good as 0, but first


@pytest.mark.parametrize('kind', [Krum, MultiKrum])
def test_too_few_updates_are_refused_in_one_sentence(kind):
    sentence = (f'{kind.__name__} with federated.aggregator.num_malicious=2 needs at least .* = 7 updates in a round, '
                'but there are 6: raise federated.clients_per_round or lower federated.aggregator.num_malicious$')
    with pytest.raises(FedSegError, match=sentence):
        aggregate(kind(num_malicious=2), make_updates(6))
    with pytest.raises(FedSegError, match=sentence):
        kind(num_malicious=2).check_cohort(6)
    kind(num_malicious=2).check_cohort(7)
    assert aggregate(kind(num_malicious=2), make_updates(7))


def test_more_selected_than_there_are_is_refused():
    with pytest.raises(FedSegError, match='federated.aggregator.num_selected is 9, but a round has 8 updates: lower'):
        MultiKrum(num_malicious=2, num_selected=9).check_cohort(8)


@pytest.mark.parametrize('arguments, sentence', [
    (dict(num_malicious=-1), 'federated.aggregator.num_malicious must be an integer of at least 0'),
    (dict(num_malicious=1.5), 'federated.aggregator.num_malicious must be an integer of at least 0'),
    (dict(num_malicious=1, num_selected=0), 'federated.aggregator.num_selected must be an integer of at least 1')])
def test_bad_arguments_are_refused(arguments, sentence):
    with pytest.raises(FedSegError, match=sentence):
        MultiKrum(**arguments)
