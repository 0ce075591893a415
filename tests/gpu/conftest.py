"""What is run first on a GPU: ``python -m pytest -m gpu tests/gpu -n 0``.

With ``FEDSEG_GPU_TESTS=cpu`` in the environment the same tests go through on a CPU, but for what only a GPU can show.
"""
import os
from pathlib import Path

import pytest
import torch

DEVICE = os.environ.get('FEDSEG_GPU_TESTS', 'cuda')


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason='needs a CUDA device')
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if DEVICE == 'cuda' and not torch.cuda.is_available():
                item.add_marker(skip)


@pytest.fixture
def device() -> torch.device:
    return torch.device(DEVICE)


@pytest.fixture
def cuda(device) -> torch.device:
    """For what a CPU cannot stand in for."""
    if device.type != 'cuda':
        pytest.skip('needs a CUDA device')
    return device
