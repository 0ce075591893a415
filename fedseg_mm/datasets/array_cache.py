"""Arrays that are kept on disk from run to run."""
import os
from pathlib import Path

import numpy as np

from fedseg_mm.files import atomic_write


def cache_folder() -> Path:
    """``$FEDSEG_CACHE``, by default ``~/.cache/fedseg_mm``."""
    return Path(os.environ.get('FEDSEG_CACHE', '~/.cache/fedseg_mm')).expanduser()


def file_state(path: str | None) -> tuple[int, int] | None:
    """What changes with a file: its size, and when it was written; None if it is not a local one."""
    if path is None:
        return None
    try:
        state = os.stat(path)
    except (OSError, TypeError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns


def read_array(path: Path) -> np.ndarray | None:
    """An array that was kept; None if there is none, or only half of one."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError):
        return None


def write_array(path: Path, array: np.ndarray) -> None:
    """Keep an array, as a whole file.

    Raises:
        OSError: It cannot be written.
    """
    with atomic_write(path) as unfinished, unfinished.open('wb') as file:  # np.save adds .npy to other names
        np.save(file, array, allow_pickle=False)
