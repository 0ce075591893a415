"""A run as a process beside others."""
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import torch

from fedseg_mm.config import tool
from fedseg_mm.errors import FedSegError
from fedseg_mm.files import write_json
from fedseg_mm.provenance import provenance
from reproduction.run import Run
from reproduction.run_logs import checkpoint_round, logged_round

#: Seconds that a stopped training, or the workers of a killed one, have to end.
PATIENCE = 10


def _end_with_parent() -> None:
    """Have Linux end this process when the one that started it is gone, also by SIGKILL."""
    if sys.platform == 'linux':
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


class Training:
    """``tools/fed_train.py --resume`` of one run, in a process group of its own.

    It goes on from the work dir's last checkpoint, if there is one. A lock,
    which the process holds as long as it lives, keeps others out.

    Args:
        run (Run): The run.
        amp (bool): Whether to train in mixed precision. Defaults to False.

    Raises:
        FedSegError: Another process trains this run.
    """

    def __init__(self, run: Run, amp: bool = False) -> None:
        self.run = run
        gpu = run.protocol.gpu
        run.folder.mkdir(parents=True, exist_ok=True)
        self.lock = (run.folder / 'lock').open('w')
        self._acquire()
        parts = run.folder / 'parts.json'
        # what was interrupted before its first checkpoint left nothing that counts
        had = json.loads(parts.read_text(encoding='utf-8')) if parts.is_file() and checkpoint_round(run.folder) else []
        write_json(parts, [*had, dict(provenance(gpu), amp=amp and torch.cuda.is_available())])
        command = [sys.executable, tool('fed_train'), run.config_file, '--work-dir', str(run.folder), '--resume',
                   *(['--amp'] if amp else []), '--cfg-options', *run.cfg_options]
        # the figures of the CPU's protocol depend on the number of threads, and must not on a GPU being there
        environment = os.environ if gpu else {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
        self.started = time.time()
        with run.log.open('a') as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
                start_new_session=True, preexec_fn=_end_with_parent, pass_fds=(self.lock.fileno(), ))

    def _acquire(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self.lock.close()
                    raise FedSegError(f'{self.run.name} is being trained by another process: wait for it, or end it '
                                      f'(its work dir is {self.run.folder})')
                time.sleep(0.2)

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def rounds(self) -> int:
        """Rounds that are behind it."""
        return logged_round(self.run.folder, self.started - 1)

    def check(self) -> None:
        """Refuse a training that failed.

        Raises:
            FedSegError: Says with which words, and where all its output is.
        """
        code = self.process.returncode
        if code < 0:
            raise FedSegError(f'{self.run.name} was ended by signal {-code} (9: perhaps for lack of memory); the same '
                              f'command goes on with it (all of its output is in {self.run.log})')
        if code > 0:
            last = (self.run.log.read_text(errors='replace').strip().splitlines() or ['no output'])[-1]
            raise FedSegError(f'{self.run.name} failed: {last} (all of its output is in {self.run.log})')

    def stop(self) -> None:
        """End it now, with its workers; it goes on from its last checkpoint later."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(PATIENCE)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.lock.close()
