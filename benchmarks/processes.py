"""A round of six equal clients in two processes against one, one thread each: tools/fed_train.py as users start it.

Times are those of the rounds that the run itself logs, without the first.
"""
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from measure import Result, main, table
from peers import config, federated_config, image_folder

CLIENTS, ROUNDS, RUNS = 6, 6, 2
TOOL = Path(__file__).parents[1] / 'tools' / 'fed_train.py'


def rounds(config_file: Path, work_dir: Path, processes: int) -> list[float]:
    """Seconds of each round but the first."""
    start = [sys.executable] if processes == 1 else [sys.executable, '-m', 'torch.distributed.run', '--standalone',
                                                     f'--nproc_per_node={processes}']
    launcher = [] if processes == 1 else ['--launcher', 'pytorch']
    done = subprocess.run([*start, str(TOOL), str(config_file), '--work-dir', str(work_dir), *launcher],
                          capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    if done.returncode:
        sys.exit(f'fed_train failed: {done.stderr[-2000:]}')
    log, = work_dir.glob('*/vis_data/rounds.json')
    return [json.loads(line)['time'] for line in log.read_text().splitlines()][1:]


def measure(device: str) -> dict[str, Result]:
    with image_folder(CLIENTS * 16) as folder:
        cfg = federated_config(config(folder, (96, 128), 8, 0), CLIENTS, CLIENTS, local_epochs=2)
        cfg.train_cfg.max_rounds = ROUNDS
        cfg.dump(folder / 'config.py')
        times: dict[int, list[float]] = {1: [], 2: []}
        for run in range(RUNS):
            for processes in times:
                times[processes] += rounds(folder / 'config.py', folder / f'{run}_{processes}', processes)
    medians = {processes: median(found) for processes, found in times.items()}
    table(f'A round of {CLIENTS} clients with 4 batches of 8 images', ['processes', 's'],
          [[processes, f'{seconds:.2f}'] for processes, seconds in medians.items()])
    return {'two_process_ratio': Result.of([two / medians[1] for two in times[2]], 0.6)}


if __name__ == '__main__':
    main(__doc__, measure, devices=('cpu', ))
