"""Processes that are started again when they end."""
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedseg_mm.silos.log_watch import LogWatch
from fedseg_mm.tool_process import end_with_parent

#: Seconds after which a process that has just been started again counts as well.
STEADY = 60.0


@dataclass
class Kept:
    """A process to keep up.

    Args:
        name (str): What people read.
        command (Sequence[str]): What starts it.
        environment (Mapping[str, str]): Its environment.
        log (Path): Where its output goes.
        at_once (int, optional): The exit status with which it asks to be
            started again at once.
    """
    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    at_once: int | None = None
    process: subprocess.Popen | None = None
    pause: float = 1.0
    started: float = 0.0
    due: float = 0.0


def _start(kept: Kept) -> None:
    with kept.log.open('ab') as log:
        kept.process = subprocess.Popen(list(kept.command), env=dict(kept.environment), stdout=log,
                                        stderr=subprocess.STDOUT, preexec_fn=end_with_parent, cwd=kept.log.parent)
    kept.started = time.monotonic()


def _ended(kept: Kept, say: Callable[[str], None]) -> None:
    code, now = kept.process.returncode, time.monotonic()  # type: ignore[union-attr]
    kept.process = None
    if code == kept.at_once:
        kept.due = now
        return
    kept.pause = 1.0 if now - kept.started > STEADY else min(2 * kept.pause, 30.0)
    kept.due = now + kept.pause
    how = signal.Signals(-code).name if code < 0 else f'status {code}'
    say(f'{kept.name} has ended ({how}), and is started again in {kept.pause:.0f} s; see {kept.log}')


def say_now(sentence: str) -> None:
    """Print a sentence with the time."""
    print(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {sentence}', flush=True)


def keep_up(processes: Sequence[Kept], watches: Sequence[LogWatch] = (), say: Callable[[str], None] = say_now) -> None:
    """Keep processes up until this one is asked to end.

    Args:
        processes (Sequence[Kept]): The processes.
        watches (Sequence[LogWatch]): Logs of which people are told.
        say (Callable): Prints a sentence.
    """
    def stop(*_) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        while True:
            for kept in processes:
                if kept.process is None and time.monotonic() >= kept.due:
                    _start(kept)
                elif kept.process is not None and kept.process.poll() is not None:
                    _ended(kept, say)
            for watch in watches:
                for sentence in watch.news():
                    say(sentence)
            time.sleep(0.2)
    except KeyboardInterrupt:
        say('Stopped.')
    finally:
        signal.signal(signal.SIGTERM, before)
        running = [kept.process for kept in processes if kept.process is not None]
        for process in running:
            process.terminate()
        until = time.monotonic() + 8
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, until - time.monotonic()))
            if process.poll() is None:
                process.kill()
