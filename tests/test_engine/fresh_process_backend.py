"""A backend of a third party's: every client trains in a process of its own, which it is told all by one message."""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fedseg_mm.engine import LocalBackend
from fedseg_mm.registry import BACKENDS
from fedseg_mm.structures import Broadcast, ClientFailure, ClientUpdate


@BACKENDS.register_module()
class FreshProcessBackend(LocalBackend):
    """Sends bytes to a new process for each client, and reads bytes.

    Args:
        config (str): The config file, for the client's process.
        failing (int, optional): A client whose process does not come up.
    """

    def __init__(self, config, failing=None):
        super().__init__()
        self.config, self.failing = config, failing
        self.bytes = []

    def train(self, cohort, broadcast):
        message = broadcast.to_bytes()
        for client in cohort:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, 'broadcast').write_bytes(message)
                done = None if client == self.failing else subprocess.run(
                    [sys.executable, '-m', __name__, self.config, self.runner.work_dir, str(client), folder],
                    capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
                if done is None:
                    yield ClientFailure(client, 'its process did not start')
                    continue
                assert done.returncode == 0, done.stdout + done.stderr
                answer = Path(folder, 'update').read_bytes()
                self.bytes.append((len(message), len(answer)))
                yield ClientUpdate.from_bytes(answer, self.federation.algorithm.shared_weights)


def main(config, work_dir, client, folder):
    from mmengine.config import Config
    from mmengine.runner import Runner

    from fedseg_mm.config import federate
    from fedseg_mm.engine import ClientStateStore, LocalTrainer

    cfg = Config.fromfile(config)
    cfg.federated.pop('backend', None)
    federate(cfg)
    cfg.work_dir = folder
    runner = Runner.from_cfg(cfg)
    federation = runner.train_loop.federation
    federation.algorithm.start(runner.model)
    trainer = LocalTrainer(runner.model, runner.build_optim_wrapper(cfg.optim_wrapper), federation.backend.stream,
                           federation.algorithm, ClientStateStore(Path(work_dir) / 'clients'), runner.seed)
    broadcast = Broadcast.from_bytes(Path(folder, 'broadcast').read_bytes(), federation.algorithm.shared_weights)
    Path(folder, 'update').write_bytes(trainer.fit(int(client), broadcast).to_bytes())


if __name__ == '__main__':
    main(*sys.argv[1:])
