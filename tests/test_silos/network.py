"""A server and two sites as processes of this machine, over NVFLARE, for the tests."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import yaml

from fedseg_mm.silos.kits import provision
from tests.conftest import ROOT, write_config
from tests.test_silos.sites import SITES, site_yaml

ENVIRONMENT = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(('localhost', 0))
        return one.getsockname()[1]


class Network:
    """Processes that end with the test.

    Args:
        folder (Path): Where kits and logs go.
        data (Path): What ``make_sites`` made.
        changes (dict, optional): Of a site's site.yaml, by its name.
        server (str): Where sites look for the server.
    """

    def __init__(self, folder: Path, data: Path, changes: dict[str, dict] | None = None,
                 server: str = 'localhost') -> None:
        self.folder, self.kits, self.data = folder, folder / 'federation', data
        self.processes: dict[str, subprocess.Popen] = {}
        self.port = free_port()
        provision(self.kits, SITES, server, self.port)
        for name in SITES:
            content = site_yaml(data, name, **(changes or {}).get(name, {}))
            (self.site(name) / 'site.yaml').write_text(yaml.safe_dump(content))

    def site(self, name: str) -> Path:
        return self.kits / 'sites' / name

    def silo(self, title: str, *words: str) -> subprocess.Popen:
        """Start `fedseg_mm silo …` in a process group of its own."""
        with (self.folder / f'{title}.log').open('a') as log:
            process = subprocess.Popen([sys.executable, '-m', 'fedseg_mm', 'silo', *words], stdout=log,
                                       stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True)
        self.processes[title] = process
        return process

    def serve(self) -> subprocess.Popen:
        return self.silo('server', 'serve', str(self.kits / 'server'))

    def start(self, name: str) -> subprocess.Popen:
        return self.silo(name, 'start', str(self.site(name)))

    def start_all(self) -> None:
        self.serve()
        for name in SITES:
            self.start(name)

    def train(self, rounds: int, *words: str, **changes) -> subprocess.Popen:
        config = write_config(self.data, self.folder / 'config', **{
            'federated.clients_per_round': 2, 'train_cfg.max_rounds': rounds, 'train_cfg.val_interval': rounds,
            'param_scheduler': [], **changes})
        return self.silo('train', 'train', config, '--kits', str(self.kits), '--work-dir', str(self.work_dir), *words)

    @property
    def work_dir(self) -> Path:
        return self.folder / 'work'

    def log(self, title: str) -> str:
        file = self.folder / f'{title}.log'
        return file.read_text(errors='replace') if file.is_file() else ''

    def rounds(self) -> list[dict]:
        """What the training has logged of its rounds, over all of its processes."""
        lines = [json.loads(line) for file in sorted(self.work_dir.glob('*/vis_data/rounds.json'))
                 for line in file.read_text().splitlines()]
        return lines

    def wait_for_round(self, number: int, seconds: float = 180.0) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if len(re.findall(rf'Round {number}: ', self.log('train'))):
                return
            if self.processes['train'].poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(f'no round {number} in {seconds} s: {self.everything()}')

    def everything(self) -> str:
        """The end of all logs, for a failed test."""
        files = [*self.folder.glob('*.log'), *self.kits.glob('**/run/*.log')]
        return '\n'.join(f'--- {file}\n{file.read_text(errors="replace")[-3000:]}' for file in files)

    def pids(self, words: str, kit: Path | None = None) -> list[int]:
        """Processes whose command line matches, of one kit."""
        found = []
        for entry in Path('/proc').iterdir():
            try:
                command = (entry / 'cmdline').read_bytes().replace(b'\0', b' ').decode() if entry.name.isdigit() else ''
            except OSError:
                continue
            if re.search(words, command) and str(kit or self.folder) in command:
                found.append(int(entry.name))
        return found

    def kill(self, words: str, kit: Path | None = None) -> None:
        pids = self.pids(words, kit)
        assert pids, f'no process of {words}'
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for process in reversed(list(self.processes.values())):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(25)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        for pid in self.pids('.'):
            os.kill(pid, signal.SIGKILL)
