"""Runs that are killed at any instant, and resumed, end with the same bits."""
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import assert_same_bits, make_images, tool_server, weights_of, write_config

KILLS = 20
ROUNDS = 4
METHODS = {
    'FedAvg': {},
    'SCAFFOLD': {'federated.algorithm': dict(type='SCAFFOLD')},
    'robust with error feedback': {
        'federated.aggregator': dict(type='GeometricMedian'),
        'federated.processors': [dict(type='TopKCompression', ratio=0.3)]},
}


def run(processes: int, config: str, *arguments, timeout: float = 600) -> bool:
    """Train; whether the training has ended by itself before it was killed, with all its processes."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    for rank in range(processes):
        ranks = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=processes, LOCAL_WORLD_SIZE=processes,
                     MASTER_ADDR='127.0.0.1', MASTER_PORT=port) if processes > 1 else {}
        launcher = ('--launcher', 'pytorch') if processes > 1 else ()
        tool_server(rank).start('fed_train', config, *arguments, *launcher, timeout=timeout,
                                FEDSEG_CACHE=str(Path(config).parent / 'cache'),  # every run scans its labels
                                **{name: str(value) for name, value in ranks.items()})
    whole = True
    for rank in range(processes):
        try:
            done = tool_server(rank).finish()
        except subprocess.TimeoutExpired:
            whole = False
            continue
        # of two processes, the second may fail because the first has just been killed
        assert done.returncode == 0 or (timeout < 600 and processes > 1), done.stdout + done.stderr
        whole = whole and done.returncode == 0
    return whole


def kept(work_dir: Path) -> dict[str, bytes]:
    """What clients keep, by file; files hold tensors and no time."""
    return {path.name: path.read_bytes() for path in sorted((work_dir / 'clients').rglob('*')) if path.is_file()}


@pytest.mark.slow
def test_killed_at_twenty_instants_and_resumed_to_equal_bits(tmp_path):
    """The instants are spread over the run, label scan and last evaluation included, and drawn within each part."""
    data = tmp_path / 'data'
    make_images(data, 'train', 24)
    make_images(data, 'test', 4, seed=1)
    settings = {'train_cfg.max_rounds': ROUNDS, 'train_cfg.val_interval': 1, 'train_dataloader.num_workers': 2}
    setups = [(name, processes) for processes in (1, 2) for name in METHODS]
    for rank in range(2):  # their start is not measured
        tool_server(rank).start('fed_train', '--help')
        assert tool_server(rank).finish().returncode == 0
    whole, seconds = {}, {}
    for name, processes in setups:
        work_dir = tmp_path / f'{name} {processes}'.replace(' ', '_')
        config = write_config(data, work_dir, **settings, **METHODS[name])
        start = time.perf_counter()
        assert run(processes, config)
        seconds[name, processes] = time.perf_counter() - start
        whole[name, processes] = weights_of(work_dir / f'round_{ROUNDS}.pth'), kept(work_dir)
    random = np.random.RandomState(0)
    for kill in range(KILLS):
        name, processes = setups[kill % len(setups)]
        instant, ended, attempt = seconds[name, processes] * (kill + random.uniform()) / KILLS, True, 0
        while ended:  # a machine that others use is faster at times
            work_dir = tmp_path / f'kill_{kill}_{attempt}'
            config = write_config(data, work_dir, **settings, **METHODS[name])
            ended = run(processes, config, timeout=instant)
            instant, attempt = instant * (0.8 if ended else 1), attempt + 1
        rounds = max((int(path.stem[6:]) for path in work_dir.glob('round_*.pth')), default=0)
        print(f'{name}, {processes} process{"es" if processes > 1 else ""}: '
              f'killed after {instant:.1f} s with {rounds} checkpoints', flush=True)
        assert run(processes, config, '--resume')
        weights, states = whole[name, processes]
        assert_same_bits(weights_of(work_dir / f'round_{ROUNDS}.pth'), weights)
        assert kept(work_dir) == states
