"""A run as a process beside others."""
import fcntl
import json
import time

import torch

from fedseg_mm.config import tool
from fedseg_mm.errors import FedSegError
from fedseg_mm.files import write_json
from fedseg_mm.provenance import provenance
from fedseg_mm.run_logs import checkpoint_round, logged_round
from fedseg_mm.tool_process import PATIENCE, ToolProcess
from reproduction.run import Run


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
        command = [tool('fed_train'), run.config_file, '--work-dir', str(run.folder), '--resume',
                   *(['--amp'] if amp else []), '--cfg-options', *run.cfg_options]
        # the figures of the CPU's protocol depend on the number of threads, and must not on a GPU being there
        environment = {} if gpu else {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
        self.started = time.time()
        self.process = ToolProcess(run.name, command, run.log, environment, pass_fds=(self.lock.fileno(), ))

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
        return self.process.ended

    @property
    def rounds(self) -> int:
        """Rounds that are behind it."""
        return logged_round(self.run.folder, self.started - 1)

    def check(self) -> None:
        """Refuse a training that failed.

        Raises:
            FedSegError: Says with which words, and where all its output is.
        """
        self.process.check(after_kill='the same command goes on with it')

    def stop(self) -> None:
        """End it now, with its workers; it goes on from its last checkpoint later."""
        self.process.stop()
        self.lock.close()
