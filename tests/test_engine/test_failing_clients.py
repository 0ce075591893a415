"""Clients that fail by turns cost their own updates, and nothing else."""
import html
import json
import math
import re

import pytest
from mmengine.hooks import Hook

from fedseg_mm.registry import CLIENT_SAMPLERS
from fedseg_mm.report import RunRecord, write_report
from fedseg_mm.samplers import AllClientsSampler
from tests.conftest import assert_same_bits, tiny_config
from tests.test_engine.test_federated_loop import model_weights, train

ROUNDS, CLIENTS = 3, 10


def failing(round: int) -> list[int]:
    """Three of the ten, others in each round."""
    return [(3 * round + place) % CLIENTS for place in range(3)]


class FailByTurns(Hook):
    """Two of the three are too slow, and one sends NaN."""

    def before_client(self, runner, client):
        federation = runner.train_loop.federation
        *slow, spoilt = failing(runner.epoch)
        federation.backend.client_time_limit = 1e-9 if client in slow else None
        if client == spoilt:
            handle = runner.optim_wrapper.optimizer.register_step_post_hook(
                lambda optimizer, args, kwargs: [handle.remove(), optimizer.param_groups[0]['params'][0].data.fill_(
                    math.nan)])


@CLIENT_SAMPLERS.register_module()
class NeverThoseThatFail(AllClientsSampler):

    def cohort(self, seed, round):
        return [client for client in super().cohort(seed, round) if client not in failing(round)]


@pytest.mark.parametrize('algorithm', [
    dict(type='SCAFFOLD', batch_norm='local'), pytest.param(dict(type='FedAvg'), marks=pytest.mark.slow)])
def test_three_of_ten_that_fail_in_turn_are_as_if_they_had_never_been_drawn(tiny_data, tmp_path, algorithm, capfd):
    changes = {'federated.algorithm': algorithm, 'federated.clients_per_round': CLIENTS,
               'federated.partitioner.num_clients': CLIENTS, 'federated.local_epochs': 1,
               'train_cfg.max_rounds': ROUNDS, 'val_dataloader': None, 'val_evaluator': None, 'val_cfg': None,
               'default_hooks.checkpoint': None}
    fails = train(tiny_config(tiny_data, tmp_path / 'fails', **changes, **{
        'federated.sampler': dict(type='AllClientsSampler')}), FailByTurns())
    console = capfd.readouterr()
    without = train(tiny_config(tiny_data, tmp_path / 'without', **changes, **{
        'federated.sampler': dict(type='NeverThoseThatFail')}))
    assert_same_bits(model_weights(fails), model_weights(without))

    log = (next((tmp_path / 'fails').glob('*/vis_data')) / 'rounds.json').read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    write_report([RunRecord(tmp_path / 'fails', 'fails')], tmp_path / 'report.html')
    page = html.unescape(re.sub('<[^>]+>', ' ', (tmp_path / 'report.html').read_text()))
    assert len(lines) == ROUNDS and f'{3 * ROUNDS} updates were left out' in page
    for line in lines:
        *slow, spoilt = failing(line['round'] - 1)
        assert sorted(one['client'] for one in line['clients'] if not one['used']) == sorted([*slow, spoilt])
        for client in slow:
            reason = next(one['reason'] for one in line['clients'] if one['client'] == client)
            assert re.fullmatch(r'it exceeded client_time_limit=1e-09: \d\.\d s so far', reason)
            assert f'Round {line["round"]}: client {client} is left out: {reason}' in console.out + console.err
            assert re.search(rf'{line["round"]}\s+{client}\s+{re.escape(reason)}', page)
        assert f'Round {line["round"]}: the update of client {spoilt} holds NaN or infinite values and is left out' in (
            console.out + console.err)
        assert re.search(rf'{line["round"]}\s+{spoilt}\s+its update held NaN or infinite values', page)
