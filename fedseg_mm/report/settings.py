"""The settings of a config that a run has left, read without running it."""
import ast
from pathlib import Path

from fedseg_mm.errors import FedSegError

#: Letters of a value that are shown.
MOST_LETTERS = 80


def read_settings(path: Path) -> dict[str, object]:
    """The settings of a config as MMEngine writes it into a work dir.

    Args:
        path (Path): A file of assignments of literals and ``dict(...)``.

    Returns:
        dict[str, object]: Dotted key -> value, e.g. ``federated.local_epochs``
        -> 2. Empty lists and dicts are values.

    Raises:
        FedSegError: It cannot be read, or holds other code.
    """
    try:
        tree = ast.parse(path.read_text(encoding='utf-8'))
        settings: dict[str, object] = {}
        for statement in tree.body:
            if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
                raise ValueError(f'line {statement.lineno} is not an assignment')
            _flatten(_value(statement.value), statement.targets[0].id, settings)
    except (OSError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise FedSegError(f'the config {path} cannot be read as settings: {error}') from error
    return settings


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {str(word.arg): _value(word.value) for word in node.keywords}
    if isinstance(node, ast.Dict):
        return {_value(key) if key is not None else None: _value(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    return ast.literal_eval(node)


def _flatten(value: object, key: str, into: dict[str, object]) -> None:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            _flatten(item, f'{key}.{name}', into)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for place, item in enumerate(value):
            _flatten(item, f'{key}.{place}', into)
    else:
        into[key] = value


def _short(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f'{text[:MOST_LETTERS - 1]}…'


def differences(runs: list[dict[str, object]]) -> list[tuple[str, list[str]]]:
    """The settings in which runs differ.

    Args:
        runs (list[dict[str, object]]): The settings of each run.

    Returns:
        list[tuple[str, list[str]]]: Key, and each run's value as text; "–"
        where it has none. Where a run's files lie is no setting.
    """
    rows = []
    for key in sorted({key for run in runs for key in run}):
        values = [repr(run[key]) if key in run else '–' for run in runs]
        if len(set(values)) > 1 and key.split('.')[-1] not in ('work_dir', 'load_from', 'resume'):
            rows.append((key, [_short(value) for value in values]))
    return rows
