"""A tool as a process beside others, with its output in a file."""
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import FedSegError

#: Seconds that a process has to end by itself when it is stopped.
PATIENCE = 10


def end_with_parent() -> None:
    """Have Linux end this process when the one that started it is gone, also by SIGKILL."""
    if sys.platform == 'linux':
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


class ToolProcess:
    """A Python script in a process group of its own, which ends with this process at the latest.

    Args:
        title (str): What people read.
        command (Sequence[str]): The script and its arguments.
        log (Path): Where its output goes, behind what is there.
        environment (Mapping[str, str], optional): Variables beside those of
            this process. Defaults to None.
        pass_fds (Sequence[int]): Open files that it holds too, as a lock.
    """

    def __init__(self, title: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None,
                 pass_fds: Sequence[int] = ()) -> None:
        self.title, self.log = title, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('a') as output:
            self.process = subprocess.Popen(
                [sys.executable, *command], stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})}, start_new_session=True, preexec_fn=end_with_parent,
                pass_fds=pass_fds)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def check(self, after_kill: str = 'run it again') -> None:
        """Refuse a process that failed.

        Args:
            after_kill (str): What helps when something killed it.

        Raises:
            FedSegError: Says with which words, and where all its output is.
        """
        code = self.process.returncode
        if code is not None and code < 0:
            raise FedSegError(f'{self.title} was ended by signal {-code} (9 often means out of memory); {after_kill} '
                              f'(all of its output is in {self.log})')
        if code:
            last = (self.log.read_text(errors='replace').strip().splitlines() or ['no output'])[-1]
            raise FedSegError(f'{self.title} failed: {last} (all of its output is in {self.log})')

    def stop(self) -> None:
        """End it now, with the processes that it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(PATIENCE)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
