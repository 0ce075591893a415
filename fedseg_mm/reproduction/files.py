"""JSON that is whole or not there."""
import json
import os
from pathlib import Path


def write_json(path: Path, content) -> None:
    """Write a file so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    unfinished.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    unfinished.replace(path)
