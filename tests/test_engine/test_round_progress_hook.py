"""The time left, in rounds that have begun and after evaluations."""
from types import SimpleNamespace

import pytest

from fedseg_mm.engine.hooks import RoundProgressHook
from fedseg_mm.engine.hooks import round_progress_hook as module


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.)
    monkeypatch.setattr(module.time, 'monotonic', lambda: clock.now)
    return clock


def test_time_left_counts_clients_and_evaluations(clock):
    """Resumed after round 2 of 12; rounds of 8 s and an evaluation of 2 s after each."""
    runner = SimpleNamespace(epoch=2, max_epochs=12)
    hook = RoundProgressHook()

    def left() -> str:
        return hook.progress.tasks[0].fields['left']

    hook.before_train(runner)
    hook.before_round(runner, [0, 1, 2, 3], None)
    assert left() == ''  # nothing is known yet
    clock.now += 4
    hook.after_client(runner, None)
    hook.after_client(runner, None)
    assert left() == ' · 0:01:16 left'  # half a round took 4 s: 9.5 rounds of 8 s
    clock.now += 6  # the other two clients and the evaluation
    hook.after_round(runner)
    runner.epoch = 3
    hook.before_round(runner, [0, 1, 2, 3], None)
    assert left() == ' · 0:01:30 left' and hook.progress.tasks[0].completed == 0
    hook.after_round(runner)
