"""Files that are whole or not there."""
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """Give a path to write to, and put the file into its place when it is written.

    Nobody ever sees half of it, even if the writer is killed; the folder is
    created.

    Args:
        path (str or Path): Its place.
        durable (bool): Whether to wait until it is on the disk, so that a
            power cut leaves the old file or the new one. Defaults to False.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        yield unfinished
        if durable:
            with unfinished.open('rb') as file:
                os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:  # a write does not say what was written
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: str | Path, content) -> None:
    """Write JSON as a whole file."""
    with atomic_write(path) as file:
        file.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
