"""Federated semantic segmentation for MMSegmentation."""
from .console import asks_for_help
from .errors import FedSegError
from .version import __version__

if not asks_for_help():
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
