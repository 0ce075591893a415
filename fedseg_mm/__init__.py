"""Federated semantic segmentation for MMSegmentation."""
import os

from .console import asks_for_help, needs_no_torch
from .errors import FedSegError
from .version import __version__

# NVFLARE's processes carry messages: they need no torch
if not (asks_for_help() or needs_no_torch() or 'FEDSEG_MM_RELAY' in os.environ):
    # first: mmseg cannot be imported on today's stack without it
    from . import compat  # noqa: F401
    # registers everything
    from . import (  # noqa: F401
        aggregators,
        algorithms,
        datasets,
        engine,
        evaluation,
        models,
        processors,
        samplers,
    )

__all__ = ['FedSegError', '__version__']
