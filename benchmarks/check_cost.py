"""What looking for mistakes before training costs on CamVid, beside the label scan.

    python benchmarks/check_cost.py

Seconds of processor time of each check in the first and in the second run of a federated training, and of the label
scan, which the second run finds in the cache. The folder of CamVid is read from FEDSEG_CAMVID.
"""
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from unittest import mock

from measure import machine, table

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'fedseg_mm::fedavg/upernet_camvid160x120_noniid1_backce.py'
#: Where each check is called.
CHECKS = ('fedseg_mm.cli.train.check_config', 'fedseg_mm.engine.backends.local_backend.check_model',
          'fedseg_mm.engine.backends.local_backend.check_losses',
          'fedseg_mm.engine.backends.local_backend.check_channels', 'fedseg_mm.models.feature_check.check_features',
          'fedseg_mm.datasets.partition_summary.PartitionSummary.warnings',
          'fedseg_mm.algorithms.FedAvg.warnings', 'fedseg_mm.engine.hooks.round_log_hook.check_evaluation')
SCAN = 'fedseg_mm.datasets.partition_dataset.scan_labels'
GOAL = 0.3


def train(folder: Path) -> dict[str, float]:
    """Train one client for a round; processor seconds by check."""
    from mmengine.utils import import_modules_from_strings

    from fedseg_mm.cli.train import main
    seconds: dict[str, float] = defaultdict(float)

    def timed(name, function):
        def call(*args, **kwargs):
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[name] += time.process_time() - start
        return call

    patches = []
    for path in (*CHECKS, SCAN):
        owner, name = path.rsplit('.', 1)
        try:
            holder = import_modules_from_strings(owner)
        except ImportError:
            module, cls = owner.rsplit('.', 1)
            holder = getattr(import_modules_from_strings(module), cls)
        patches.append(mock.patch.object(holder, name, timed(path, getattr(holder, name))))
    for patch in patches:
        patch.start()
    main([CONFIG, '--work-dir', str(folder), '--cfg-options', 'train_cfg.max_rounds=1', 'federated.clients_per_round=1',
          'train_cfg.val_begin=9', 'train_dataloader.num_workers=0'])
    for patch in patches:
        patch.stop()
    return seconds


def measure() -> float:
    data = Path(os.environ.get('FEDSEG_CAMVID', 'data/camvid'))
    if not (data / 'img_dir').is_dir():
        sys.exit(f'check_cost: there is no {data}/img_dir; name the folder of CamVid in FEDSEG_CAMVID')
    with tempfile.TemporaryDirectory() as name:
        os.environ['FEDSEG_CACHE'] = f'{name}/cache'
        first, second = (train(Path(name) / run) for run in ('first', 'second'))
    table('Seconds of processor time', ['', 'first run', 'second run'], [
        ['.'.join(path.rsplit('.', 2)[1:]), f'{first[path]:.3f}', f'{second[path]:.3f}'] for path in (SCAN, *CHECKS)])
    return sum(second[path] for path in CHECKS)


if __name__ == '__main__':
    print(machine())
    total = measure()
    print(f'All checks beside the label scan: {total:.3f} s; goal {GOAL} s: '
          f'{"holds" if total <= GOAL else "does NOT hold"}')
