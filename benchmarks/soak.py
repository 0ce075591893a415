"""Thousands of rounds with tiny clients: nothing may grow but the log.

    python benchmarks/soak.py
    python benchmarks/soak.py --rounds 200 --json soak.json

Trains FedDyn, whose clients keep state on disk, with two loader workers and a checkpoint every 50 rounds of which two
are kept. Every 50th round the process's resident memory, open files, threads, child processes and the files of the work
dir are counted; between the first quarter of the run and its end they may not grow (memory: by less than 2 %).
"""
import argparse
import gc
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

import fedseg_mm
from fedseg_mm.config import federate, find_config
from fedseg_mm.files import write_json

EVERY = 50


class Counter(Hook):
    """Counts what could grow."""

    def __init__(self) -> None:
        self.rows: list[dict[str, int]] = []
        self.started = time.perf_counter()

    def after_train_epoch(self, runner) -> None:
        if (runner.epoch + 1) % EVERY:
            return
        gc.collect()
        status = Path('/proc/self/status').read_text()
        memory = int(next(line for line in status.splitlines() if line.startswith('VmRSS')).split()[1])
        children = len(Path(f'/proc/self/task/{os.getpid()}/children').read_text().split())
        self.rows.append(dict(
            round=runner.epoch + 1, memory_kb=memory, open_files=len(os.listdir('/proc/self/fd')),
            threads=threading.active_count(), processes=children,
            files=sum(path.is_file() for path in Path(runner.work_dir).rglob('*'))))
        print(f'{time.perf_counter() - self.started:6.0f} s', *(f'{name} {value}' for name, value in
                                                             self.rows[-1].items()), flush=True)


def config(rounds: int, folder: str) -> Config:
    cfg = Config.fromfile(find_config('fedseg_mm::fedavg/upernet_streetscenes_noniid1_backce.py'))
    cfg = Config(cfg.to_dict(), format_python_code=False)
    size, norm = (32, 24), dict(type='BN')
    cfg.model.backbone = dict(
        type='ResNetV1c', depth=18, stem_channels=4, base_channels=4, num_stages=1, out_indices=(0, ), strides=(1, ),
        dilations=(1, ), norm_cfg=norm, norm_eval=False, style='pytorch')
    cfg.model.decode_head = dict(
        type='FCNHead', in_channels=4, in_index=0, channels=4, num_convs=1, concat_input=False, dropout_ratio=0,
        num_classes=10, norm_cfg=norm, align_corners=False, loss_decode=dict(type='BackCELoss'))
    for loader, number in (('train', 20), ('val', 2)):
        cfg[f'{loader}_dataloader'].dataset.update(num_images=number, size=size, pipeline=[
            dict(type='LoadStreetScene'), dict(type='PackSegInputs')])
    cfg.merge_from_dict({
        'model.data_preprocessor.size': size[::-1], 'train_dataloader.num_workers': 2, 'train_dataloader.batch_size': 2,
        'federated.partitioner': dict(type='IIDPartitioner', num_clients=10, seed=0),
        'federated.clients_per_round': 3, 'federated.local_epochs': 1,
        'federated.algorithm': dict(type='FedDyn', alpha=0.01),
        'default_hooks.checkpoint': dict(type='CheckpointHook', interval=EVERY, max_keep_ckpts=2,
                                         filename_tmpl='round_{}.pth', save_best='mIoU'),
        'log_level': 'ERROR', 'optim_wrapper.optimizer.lr': 0.01, 'work_dir': folder})
    cfg.train_cfg = dict(type='FederatedTrainLoop', max_rounds=rounds, val_interval=EVERY)
    federate(cfg)
    return cfg


def grown(rows: list[dict[str, int]]) -> list[str]:
    """What grew from the first quarter of the run to its last one, a line each."""
    quarter = max(len(rows) // 4, 1)
    lines = []
    for name in rows[0]:
        if name == 'round':
            continue
        first = float(np.median([row[name] for row in rows[quarter // 2:quarter + 1]]))
        last = float(np.median([row[name] for row in rows[-quarter:]]))
        if last > first * (1.02 if name == 'memory_kb' else 1):
            lines.append(f'{name} grew from {first:.0f} to {last:.0f}')
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=2000)
    parser.add_argument('--json', type=Path, metavar='FILE')
    args = parser.parse_args()
    from mmseg.utils import register_all_modules  # after fedseg_mm, which makes it importable
    register_all_modules()
    counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            runner = Runner.from_cfg(config(args.rounds, folder))
        except fedseg_mm.FedSegError as error:
            sys.exit(str(error))
        runner.register_hook(counter, priority='LOWEST')
        runner.train()
        assert runner.epoch == args.rounds
    found = grown(counter.rows)
    if args.json:
        write_json(args.json, dict(rounds=args.rounds, rows=counter.rows, grown=found))
    print('\n'.join(found) or f'{args.rounds} rounds: nothing grew')
    sys.exit(bool(found))


if __name__ == '__main__':
    main()
