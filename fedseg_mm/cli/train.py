"""Federated training of an MMSegmentation model."""
import argparse
import logging
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from fedseg_mm.cli.common import (
    DISK_ERRORS,
    add_common_arguments,
    add_data_argument,
    add_federated_argument,
    config_of,
    joined_processes,
    one_sentence_errors,
)
from fedseg_mm.cli.parser import ToolParser
from fedseg_mm.config import check_config, federate, warn_of_iterations
from fedseg_mm.engine.stop_signals import terminated_as_stopped
from fedseg_mm.engine.tool_runner import ToolRunner
from fedseg_mm.errors import Faults, FedSegError
from fedseg_mm.registry import type_name
from fedseg_mm.resume import settle_resume

#: Mixed precision: what --amp takes, and MMEngine's own.
AMP = ('Float32ResizeAmpOptimWrapper', 'AmpOptimWrapper')
EPILOG = """\
examples:
  train             python tools/fed_train.py configs/fedavg/upernet_camvid160x120_noniid1_backce.py
  a plain config    python tools/fed_train.py mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py \\
                        --federated configs/_base_/federated/fedseg_noniid1.py
  other data        python tools/fed_train.py mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py \\
                        --data configs/_base_/datasets/camvid_512x512.py \\
                        --federated configs/_base_/federated/fedseg_noniid1.py
  another method    python tools/fed_train.py CONFIG --cfg-options federated.algorithm.type=FedProx \\
                        federated.algorithm.mu=0.01
  go on             python tools/fed_train.py CONFIG --resume
  from one file     python tools/fed_train.py CONFIG --resume work_dirs/CONFIG/round_20.pth
  larger cohorts    python tools/fed_train.py CONFIG --cfg-options federated.clients_per_round=10
  fewer rounds      python tools/fed_train.py CONFIG --cfg-options train_cfg.max_rounds=20
  another seed      python tools/fed_train.py CONFIG --cfg-options randomness.seed=1
  two processes     torchrun --nproc_per_node=2 tools/fed_train.py CONFIG --launcher pytorch
  evaluate          python tools/test.py CONFIG work_dirs/CONFIG/round_70.pth

The config's `federated = dict(...)` says who holds what (partitioner), how many clients train in a round
(clients_per_round), for how long (local_epochs) and by which method (algorithm). Checkpoints (round_N.pth), the
partition (partition.json) and logs are written to the work dir; vis_data/rounds.json holds one line per round with the
cohort and each client's loss and time."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser('fed_train', 'Train a segmentor with federated learning.', EPILOG)
    parser.add_argument('config', help='config file, e.g. configs/fedseg/deeplabv3_cityscapes_noniid1.py')
    parser.add_argument('--work-dir', help='where checkpoints and logs go (default: work_dirs/CONFIG_NAME)')
    parser.add_argument('--resume', nargs='?', const=True, default=False, metavar='FILE',
                        help='go on from the latest whole checkpoint in the work dir, or from FILE; the result equals '
                        'that of a run without the interruption')
    parser.add_argument('--amp', action='store_true',
                        help='mixed precision on a GPU: bfloat16 where the GPU has it, else float16')
    parser.add_argument('--quiet', action='store_true',
                        help='show warnings and the end of the run alone; the log file has all')
    add_federated_argument(parser)
    add_data_argument(parser)
    add_common_arguments(parser)
    args = parser.parse_args(_with_flag(sys.argv[1:] if argv is None else argv))
    args.resume = args.resume or args.resume == ''
    return args


def _with_flag(argv: list[str]) -> list[str]:
    """A config after ``--resume`` is no checkpoint."""
    return ['--resume=' if word == '--resume' and (following.endswith('.py') or '::' in following) else word
            for word, following in zip(argv, [*argv[1:], ''])]


def use_amp(cfg: Config) -> None:
    """Train in mixed precision, if there is a GPU."""
    if not torch.cuda.is_available():
        print_log('Mixed precision needs a GPU and there is none: training in float32.', 'current', logging.WARNING)
        if type_name(cfg.optim_wrapper.get('type')) in AMP:
            cfg.optim_wrapper.type = 'OptimWrapper'
            for key in ('dtype', 'loss_scale', 'use_fp64'):
                cfg.optim_wrapper.pop(key, None)
        return
    if type_name(cfg.optim_wrapper.get('type', 'OptimWrapper')) not in ('OptimWrapper', *AMP):
        raise FedSegError(f'--amp cannot be combined with optim_wrapper.type={cfg.optim_wrapper.type}')
    if torch.cuda.is_bf16_supported(including_emulation=False):
        # no loss scaling: bfloat16 has float32's range, and a scaler skips some of a client's few steps
        cfg.optim_wrapper.update(type=AMP[0], dtype='bfloat16', loss_scale=dict(enabled=False))
    else:
        cfg.optim_wrapper.update(type=AMP[0], dtype='float16', loss_scale='dynamic')


def _check_work_dir(work_dir: str) -> None:
    """Refuse a folder that cannot be made, before anything is read that takes time."""
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise FedSegError(f'the work dir {work_dir} cannot be made ({error.strerror}): name another with --work-dir'
                          ) from error


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence_errors('fed_train'):
        cfg = config_of(args)
        faults = Faults()
        with faults:
            federate(cfg)
        with faults:
            check_config(cfg)
        faults.report()
        wrapper = type_name(cfg.optim_wrapper.get('type'))
        if args.amp or (wrapper in AMP and not torch.cuda.is_available()):
            use_amp(cfg)
        _check_work_dir(cfg.work_dir)
        resume, load_from = settle_resume(cfg, args.resume)
        warn_of_iterations(cfg)
        with joined_processes(cfg), terminated_as_stopped():
            ToolRunner.quiet = args.quiet
            runner = ToolRunner.from_cfg(cfg)
            # not in the config, of which the work dir gets a copy: whoever starts the copy does not ask for it
            runner._resume, runner._load_from = resume, load_from
            runner.train()
            if resume and runner.train_loop.started_at >= runner.max_epochs:
                print_log(f'Nothing left to train: the checkpoint is of round {runner.train_loop.started_at} of '
                          f'max_rounds={runner.max_epochs}; raise train_cfg.max_rounds to go on.', 'current',
                          level=logging.WARNING)
