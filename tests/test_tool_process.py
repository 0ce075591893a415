"""Tools as processes beside others."""
import time

import pytest

from fedseg_mm.errors import FedSegError
from fedseg_mm.tool_process import ToolProcess


def started(tmp_path, text: str) -> ToolProcess:
    script = tmp_path / 'script.py'
    script.write_text(text)
    return ToolProcess('the script', [str(script)], tmp_path / 'logs' / 'script.log', {'FEDSEG_WORD': 'hello'})


def wait(process: ToolProcess) -> None:
    deadline = time.monotonic() + 30
    while not process.ended:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_it_prints_is_in_its_log(tmp_path):
    for _ in range(2):
        process = started(tmp_path, 'import os; print(os.environ["FEDSEG_WORD"])')
        wait(process)
        process.check()
    assert process.log.read_text() == 'hello\nhello\n'


@pytest.mark.parametrize('text, sentence', [
    ('import sys; print("first"); sys.exit("tool: no data")', 'the script failed: tool: no data (all of its output'),
    ('raise SystemExit(3)', 'the script failed: no output (all'),
    ('import os, signal; os.kill(os.getpid(), signal.SIGKILL)', 'the script was ended by signal 9')])
def test_a_failure_is_one_sentence(tmp_path, text, sentence):
    process = started(tmp_path, text)
    wait(process)
    with pytest.raises(FedSegError) as error:
        process.check()
    assert str(error.value).startswith(sentence) and str(process.log) in str(error.value)


def test_stop_ends_what_it_started_too(tmp_path):
    child = 'import pathlib, time; time.sleep(1.5); pathlib.Path("late").write_text("still there")'
    process = started(tmp_path, f'import os, subprocess, sys, time\nos.chdir({str(tmp_path)!r})\n'
                      f'subprocess.Popen([sys.executable, "-c", {child!r}])\n'
                      'open("ready", "w").close()\ntime.sleep(60)\n')
    deadline = time.monotonic() + 30
    while not (tmp_path / 'ready').exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.stop()
    assert process.ended
    time.sleep(2)
    assert not (tmp_path / 'late').exists()
