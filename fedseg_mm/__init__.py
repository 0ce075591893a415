"""Federated semantic segmentation for MMSegmentation."""
from . import compat  # noqa: F401  first: mmseg cannot be imported on today's stack without it
from . import aggregators, algorithms, datasets, engine, models, processors, samplers  # noqa: F401  registers everything
from .errors import FedSegError
from .version import __version__

__all__ = ['FedSegError', '__version__']
