import numpy as np
import pytest
import torch

import fedseg_mm
from fedseg_mm.errors import FedSegError
from fedseg_mm.processors import (
    GaussianMechanism,
    Int8Compression,
    NormClipping,
    ProcessorPipeline,
    TopKCompression,
    UpdateProcessor,
)
from fedseg_mm.registry import UPDATE_PROCESSORS, build
from tests.test_processors.updates import clone, context, equal, flat, update


class Counting(UpdateProcessor):
    """Adds ``step`` at the server, and counts rounds there and at clients."""

    def __init__(self, step=1.0):
        super().__init__()
        self.step, self.rounds = step, 0

    def at_client(self, delta, context):
        context.state['rounds'] = context.state.get('rounds', torch.tensor(0)) + int(self.step)
        context.state.pop('old', None)
        return delta

    def at_server(self, delta, total, round):
        self.rounds += 1
        return {name: tensor * 2 + self.step for name, tensor in delta.items()}

    def metrics(self):
        return dict(rounds=float(self.rounds))

    def state_dict(self):
        return dict(rounds=self.rounds)

    def load_state_dict(self, state):
        self.rounds = state['rounds']


class Renaming(UpdateProcessor):

    def at_client(self, delta, context):
        delta['new'] = delta.pop('head.bias')
        return delta


def test_none_and_the_default_change_nothing():
    for processors in ((), [UpdateProcessor()], [UpdateProcessor(), UpdateProcessor()]):
        pipeline, delta = ProcessorPipeline(processors), update()
        pipeline.setup(1)
        payload = pipeline.at_client(clone(delta), context())
        assert equal(payload, delta)
        assert equal(pipeline.at_receipt(payload, delta), delta)
        assert equal(pipeline.at_server(clone(delta), 1.0, 0), delta)
        assert pipeline.metrics() == {} and pipeline.state_dict() == {} and not pipeline.needs_equal_weights
        pipeline.load_state_dict({})


def test_client_side_is_applied_in_order():
    """Clipped to half its length, then the larger entry is sent and the other remembered."""
    pipeline, where = ProcessorPipeline([NormClipping(2.5), TopKCompression(0.5)]), context(['a'])
    payload = pipeline.at_client(dict(a=torch.tensor([3., 4.])), where)
    assert payload.keys() == {'a/values', 'a/indices'}
    torch.testing.assert_close(pipeline.at_receipt(payload, dict(a=torch.empty(2)))['a'], torch.tensor([0., 2.]))
    torch.testing.assert_close(where.state, {'1.TopKCompression/a': torch.tensor([1.5, 0.])})
    assert pipeline.metrics() == pytest.approx(dict(clipped_share=1.0, update_norm=5.0, sent_share=1.0))


def test_server_side_is_applied_in_order():
    """2 (2 · 1 + 10) + 1 = 25, and not 2 (2 · 1 + 1) + 10 = 16."""
    pipeline = ProcessorPipeline([Counting(10.0), Counting(1.0)])
    assert pipeline.at_server(dict(a=torch.tensor([1.])), 1.0, 0)['a'].item() == 25


def test_a_whole_round_equals_the_definition():
    """Mean of clipped updates plus noise; the clients' rounding is within the scale."""
    pipeline, number = ProcessorPipeline([GaussianMechanism(0.1, 1.0), Int8Compression()]), 4
    assert pipeline.needs_equal_weights
    pipeline.setup(3)
    like, mean, expected = update(), 0, 0
    for client in range(number):
        delta = update(client)
        expected = expected + flat(delta) / max(1, np.linalg.norm(flat(delta))) / number
        received = pipeline.at_receipt(pipeline.at_client(delta, context(client=client)), like)
        mean = mean + flat(received) / number
    assert np.abs(mean - expected).max() < 1 / 127
    zero = {name: torch.zeros_like(tensor) for name, tensor in like.items()}
    noisy = flat(pipeline.at_server(zero, float(number), round=0))
    assert 0.5 < noisy.std() / (0.1 / number) < 1.5
    assert pipeline.metrics().keys() == {'clipped_share', 'update_norm', 'noise_std', 'sent_share'}


def test_states_of_a_client_are_kept_apart():
    state = {'0.Counting/rounds': torch.tensor(7), '1.Counting/old': torch.tensor(1), 'other': torch.tensor(5)}
    ProcessorPipeline([Counting(1), Counting(10), TopKCompression(0.5)]).at_client(
        dict(a=torch.tensor([1., 2.])), context(['a'], state=state))
    assert {key: value.tolist() for key, value in state.items()} == {
        '0.Counting/rounds': 8, '1.Counting/rounds': 10, '2.TopKCompression/a': [1., 0.], 'other': 5}


def test_position_ten_is_not_position_one():
    state = {}
    ProcessorPipeline([Counting(i) for i in range(12)]).at_client(update(), context(state=state))
    assert [state[f'{i}.Counting/rounds'].item() for i in range(12)] == list(range(12))


def test_server_state_survives():
    first, second = ProcessorPipeline([Counting(), Counting()]), ProcessorPipeline([Counting(), Counting()])
    first.processors[0].rounds, first.processors[1].rounds = 3, 5
    assert first.state_dict() == {'0.Counting/rounds': 3, '1.Counting/rounds': 5}
    second.load_state_dict(first.state_dict())
    assert [processor.rounds for processor in second.processors] == [3, 5]
    with pytest.raises(FedSegError, match=r'federated\.processors: the checkpoint holds the state of 1\.Counting'):
        ProcessorPipeline([Counting()]).load_state_dict(first.state_dict())


def test_metrics_of_one_name_are_told_apart():
    pipeline = ProcessorPipeline([NormClipping(1.0), NormClipping(0.5), Counting()])
    pipeline.at_client(dict(a=torch.tensor([0.75])), context())
    assert pipeline.metrics() == {
        '0.NormClipping/clipped_share': 0.0, '0.NormClipping/update_norm': 0.75,
        '1.NormClipping/clipped_share': 1.0, '1.NormClipping/update_norm': 0.75, 'rounds': 0.0}


def test_payloads_are_contiguous():
    delta = dict(a=torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
    payload = ProcessorPipeline([NormClipping(1.0)]).at_client(delta, context())
    assert payload['a'].is_contiguous() and payload['a'].norm() <= 1 + 1e-6


def test_refusals():
    with pytest.raises(FedSegError, match=r'federated\.processors: Int8Compression encodes .* but NormClipping does'):
        ProcessorPipeline([Int8Compression(), NormClipping(1.0)])
    with pytest.raises(FedSegError, match=r'federated\.processors: Renaming must return'):
        ProcessorPipeline([Renaming(), NormClipping(1.0)]).at_client(update(), context())


@pytest.mark.parametrize('cfg', [
    dict(type='NormClipping', max_norm=1.0), dict(type='GaussianMechanism', noise_multiplier=1.0, max_norm=1.0),
    dict(type='BFloat16Compression'), dict(type='Int8Compression'), dict(type='TopKCompression', ratio=0.1)
])
def test_configs_build_them(cfg):
    processor = build(UPDATE_PROCESSORS, cfg, 'federated.processors')
    assert isinstance(processor, UpdateProcessor) and type(processor).__name__ == cfg['type']
    assert type(processor) is getattr(fedseg_mm.processors, cfg['type'])
