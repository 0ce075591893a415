"""Files that are whole or not there, and texts that hold no code."""
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fedseg_mm.errors import FedSegError, reason, shown

#: Bytes of a text that are read at most: a manifest of ten million images has fewer.
MOST_BYTES = 1 << 30


class PlainYaml(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's: ten times as fast
    """PyYAML's reader of plain values."""

    def flatten_mapping(self, node) -> None:
        """No ``<<``: of ten lines of it, gigabytes can be made."""


def read_bytes(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file of a sane size.

    Raises:
        OSError: It cannot be read.
        FedSegError: It is larger.
    """
    with Path(path).open('rb') as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FedSegError(f'{path} has more than {most >> 20} MiB, which no such file has')
    return content


def parse(text: str, as_yaml: bool = False) -> Any:
    """The plain values that a text of JSON or YAML says.

    Raises:
        ValueError: It is no such text.
    """
    try:
        return yaml.load(text, PlainYaml) if as_yaml else json.loads(text)
    except Exception as error:  # of a damaged text, PyYAML may raise anything
        raise ValueError(shown(reason(error))) from error


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
