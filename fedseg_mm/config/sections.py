"""Where data sets and metrics stand in a config, whatever they are wrapped in."""
from collections.abc import Iterator

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def plain_datasets_of(dataset: dict, key: str) -> Iterator[tuple[str, dict]]:
    """The data sets that wrappers hold, with their keys."""
    parts = [(f'{key}.datasets.{i}', part) for i, part in enumerate(dataset.get('datasets') or [])]
    if isinstance(dataset.get('dataset'), dict):
        parts.append((f'{key}.dataset', dataset['dataset']))
    if not parts:
        yield key, dataset
    for name, part in parts:
        yield from plain_datasets_of(part, name)


def evaluator_dicts(evaluator) -> list[dict]:
    """The metrics of an evaluator, which may be one, a list of them, or an Evaluator that holds them."""
    if isinstance(evaluator, (list, tuple)):
        return [metric for one in evaluator for metric in evaluator_dicts(one)]
    if isinstance(evaluator, dict):
        return evaluator_dicts(evaluator['metrics']) if 'metrics' in evaluator else [evaluator]
    return []
