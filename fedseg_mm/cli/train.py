"""Federated training of an MMSegmentation model."""
import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from fedseg_mm.cli import arguments
from fedseg_mm.cli.common import (
    DISK_ERRORS,
    config_of,
    joined_processes,
    one_sentence_errors,
)
from fedseg_mm.config import check_config, federate, warn_of_iterations, warn_of_workers, weight_sources
from fedseg_mm.config.amp import settle_amp
from fedseg_mm.config.sections import LOADERS
from fedseg_mm.engine.stop_signals import terminated_as_stopped
from fedseg_mm.engine.tool_runner import ToolRunner
from fedseg_mm.errors import DownloadError, Faults, FedSegError
from fedseg_mm.resume import settle_resume


def _check_work_dir(work_dir: str) -> None:
    """Refuse a folder that cannot be made, before anything is read that takes time."""
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise FedSegError(f'the work dir {work_dir} cannot be made ({error.strerror}): name another with --work-dir'
                          ) from error


@contextmanager
def _without_a_network(cfg: Config) -> Iterator[None]:
    """Say with which options a training does without weights that cannot be downloaded."""
    options = ' '.join(f'{key}=None' for key in weight_sources(cfg))
    try:
        yield
    except DownloadError as error:
        raise FedSegError(f'{error}, or do without pretrained weights: --cfg-options {options}') from error


def main(argv: list[str] | None = None) -> None:
    args = arguments.train(argv)
    with one_sentence_errors('fed_train'):
        run(config_of(args), args)


def run(cfg: Config, args: argparse.Namespace, loaders: tuple[str, ...] = LOADERS[:2]) -> None:
    """Train by a config.

    Args:
        cfg (Config): The whole config.
        args (Namespace): ``resume``, ``amp`` and ``quiet``.
        loaders (tuple[str]): The dataloaders whose folders must exist.

    Raises:
        FedSegError: Names all that is wrong with the config, or what has
            ended the training.
    """
    faults = Faults()
    with faults:
        federate(cfg)
    with faults:
        check_config(cfg, loaders)
    faults.report()
    settle_amp(cfg, args.amp)
    _check_work_dir(cfg.work_dir)
    resume, load_from = settle_resume(cfg, args.resume)
    warn_of_iterations(cfg)
    warn_of_workers(cfg, loaders)
    with joined_processes(cfg), terminated_as_stopped(), _without_a_network(cfg):
        ToolRunner.quiet = args.quiet
        runner = ToolRunner.from_cfg(cfg)
        # not in the config, of which the work dir gets a copy: whoever starts the copy does not ask for it
        runner._resume, runner._load_from = resume, load_from
        runner.train()
        if resume and runner.train_loop.started_at >= runner.max_epochs:
            print_log(f'Nothing left to train: the checkpoint is of round {runner.train_loop.started_at} of '
                      f'max_rounds={runner.max_epochs}; raise train_cfg.max_rounds to go on.', 'current',
                      level=logging.WARNING)
