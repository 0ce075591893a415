"""Mixed precision, where there is a GPU for it."""
import logging

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import type_name

#: What --amp takes, and MMEngine's own.
AMP = ('Float32ResizeAmpOptimWrapper', 'AmpOptimWrapper')


def settle_amp(cfg: Config, asked: bool = False) -> None:
    """Train in mixed precision where it is asked for, and never without a GPU; changes ``cfg`` in place.

    Args:
        cfg (Config): With ``optim_wrapper``.
        asked (bool): Whether the command line asks for it, and not the config.
            Defaults to False.

    Raises:
        FedSegError: Another wrapper of the optimizer is in its place.
    """
    if asked or (type_name(cfg.optim_wrapper.get('type')) in AMP and not torch.cuda.is_available()):
        _use_amp(cfg)


def _use_amp(cfg: Config) -> None:
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
