import re

import pytest
from mmengine.hooks import Hook

from tests.conftest import tiny_config
from tests.test_engine.test_federated_loop import Interrupt, train


class Figures(Hook):
    """What every evaluation gave."""

    def __init__(self):
        self.miou = {}

    def after_val_epoch(self, runner, metrics=None):
        self.miou[runner.epoch] = metrics['mIoU']


def config(data, work_dir, **changes):
    return tiny_config(data, work_dir, **{
        'train_cfg.max_rounds': 5, 'train_cfg.val_interval': 1, **changes,
        'default_hooks.mean_evaluation': dict(type='MeanEvaluationHook', last=3)})


def logged(work_dir) -> tuple[str, float]:
    """Rounds and mean mIoU of the last log."""
    text = max(work_dir.glob('*/*.log')).read_text()
    rounds, miou = re.findall(r'Mean of the evaluations after rounds ([\d, ]+): .*mIoU ([\d.]+)', text)[-1]
    return rounds, float(miou)


def test_mean_of_the_last_three(tiny_data, tmp_path):
    figures = Figures()
    train(config(tiny_data, tmp_path), figures)
    rounds, miou = logged(tmp_path)
    assert rounds == '3, 4, 5' and len(figures.miou) == 5
    assert miou == pytest.approx(sum(figures.miou[round] for round in (3, 4, 5)) / 3, abs=0.006)


def test_a_resumed_run_remembers(tiny_data, tmp_path):
    train(config(tiny_data, tmp_path / 'whole'))
    with pytest.raises(KeyboardInterrupt):
        train(config(tiny_data, tmp_path / 'parts'), Interrupt(round=3))
    train(config(tiny_data, tmp_path / 'parts', resume=True))
    assert logged(tmp_path / 'whole') == logged(tmp_path / 'parts')


def test_a_run_that_was_killed_during_its_last_evaluation_is_evaluated(tiny_data, tmp_path):
    class Killed(Hook):

        def before_val(self, runner):
            if runner.epoch == 5:
                raise KeyboardInterrupt

    train(config(tiny_data, tmp_path / 'whole'))
    with pytest.raises(KeyboardInterrupt):
        train(config(tiny_data, tmp_path / 'parts'), Killed())
    train(config(tiny_data, tmp_path / 'parts', resume=True))
    assert logged(tmp_path / 'whole') == logged(tmp_path / 'parts')
    best = [max((tmp_path / run).glob('best_mIoU_*.pth')).name for run in ('whole', 'parts')]
    assert best[0] == best[1]


@pytest.mark.parametrize('changes', [
    {}, {'train_cfg.val_interval': 2}, {'train_cfg.val_interval': 4, 'train_cfg.dynamic_intervals': [(4, 1)]},
    {'train_cfg.val_begin': 3}])
def test_the_loop_knows_which_rounds_are_evaluated(tiny_data, tmp_path, changes):
    figures = Figures()
    runner = train(config(tiny_data, tmp_path, **changes), figures)
    assert [round for round in range(1, 6) if runner.train_loop.evaluates(round)] == list(figures.miou)
