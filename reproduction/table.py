"""The paper's table, of what was measured."""
import statistics
from collections.abc import Iterable, Sequence
from operator import itemgetter

from prettytable import PrettyTable

from fedseg_mm.report import published
from reproduction.protocol import SPLITS, Protocol
from reproduction.result import METRICS

NONE = '–'
#: How the rows are called.
TITLES = {
    'CE': 'FedAvg (CE)',
    'BackCE': 'FedAvg + BackCE',
    'FedProx': 'FedProx + BackCE',
    'FedDyn': 'FedDyn + BackCE',
    'MOON': 'MOON + BackCE',
    'FedSeg': 'FedSeg (BackCE + contrast)',
    'BackCE-balanced': 'FedAvg + balanced BackCE',
    'FedProx-balanced': 'FedProx + balanced BackCE',
    'FedDyn-balanced': 'FedDyn + balanced BackCE',
    'MOON-balanced': 'MOON + balanced BackCE',
    'FedSeg-balanced': 'FedSeg (balanced BackCE + contrast)',
    **{f'{row}-{epochs}': f'{row}, {epochs} local epoch{"s" * (epochs > 1)}'
       for row in ('BackCE', 'FedProx', 'FedSeg') for epochs in (1, 2, 4, 8)},
    **{f'BackCE-{loss}': f'BackCE and {title}' for loss, title in (
        ('ce', '`CrossEntropyLoss`'), ('bce', '`CrossEntropyLoss(use_sigmoid=True)`'), ('dice', '`DiceLoss`'),
        ('tversky', '`TverskyLoss`'), ('lovasz', '`LovaszLoss`'), ('hausdorff', '`HuasdorffDisstanceLoss`'))},
    'centralised': 'all images and labels in one place',
    'centralised-masked': "all images in one place, with the clients' labels",
    'local-only': 'every client alone, mean over the clients'
}
HEAD = ('', 'non-IID1', 'published', 'non-IID2', 'published')
OWN_HEAD = ('', 'mIoU / aAcc')
SPLITS_HEAD = ('', 'non-IID1', 'non-IID2')
VARIANTS_HEAD = ('row', 'settings', 'non-IID1', 'difference', 'non-IID2', 'difference')


def cell(results: Sequence[dict]) -> str:
    """mIoU and pixel accuracy of the results of one row and split.

    Several seeds are given as mean ± sample standard deviation, with their
    number.
    """
    if not results:
        return NONE
    figures = [[result['mean_of_last_five'][name] for result in results] for name in METRICS]
    if len(results) == 1:
        return ' / '.join(f'{values[0]:.2f}' for values in figures)
    return ' / '.join(f'{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}'
                      for values in figures) + f' ({len(results)} seeds)'


def table_head(protocol: Protocol) -> tuple[str, ...]:
    if protocol.published:
        return HEAD
    return SPLITS_HEAD if _has_splits(protocol) else OWN_HEAD


def _has_splits(protocol: Protocol) -> bool:
    return any(None not in protocol.splits(row) for row in protocol.configs)


def table_rows(protocol: Protocol, results: Iterable[dict]) -> list[list[str]]:
    """The lines of the table, each with the published figures, if there are any, beside ours.

    Args:
        protocol (Protocol): Gives the rows.
        results (Iterable[dict]): The complete runs; what is not there is
            "–". A row without splits has the same figure on both.
    """
    results = list(results)
    lines = []
    for row in protocol.configs:
        line = [TITLES.get(row, row)]
        if not protocol.published and not _has_splits(protocol):
            lines.append([*line, cell([one for one in results if one['row'] == row])])
            continue
        for classes, split in enumerate(SPLITS, 1):
            line += [cell([one for one in results if one['row'] == row and one['split'] in (split, None)]),
                     *([published(row, 'CamVid', classes) or NONE] if protocol.published else [])]
        lines.append(line)
    return lines


def variant_rows(protocol: Protocol, results: Iterable[dict]) -> list[list[str]]:
    """The rows that were also run with other settings, each below itself as it stands in the protocol.

    Args:
        protocol (Protocol): Gives the rows.
        results (Iterable[dict]): The complete runs, with any options.

    Returns:
        list[list[str]]: Per row and options, the figures on both splits as
        in :func:`cell`, and by how much mIoU differs from the row without
        options, over the seeds that both have.
    """
    results = list(results)
    lines = []
    for row in protocol.configs:
        found: dict[tuple[str, ...], list[dict]] = {}
        for one in results:
            if one['row'] == row:
                found.setdefault(tuple(one['options']), []).append(one)
        own = found.pop((), [])
        for options, variant in [((), own), *sorted(found.items())] if found else []:
            line = [row, f'`{" ".join(options)}`' if options else 'as in the protocol']
            for split in SPLITS:
                here = [one for one in variant if one['split'] in (split, None)]
                line += [cell(here), _difference(here, own) if options else NONE]
            lines.append(line)
    return lines


def _difference(results: Sequence[dict], own: Sequence[dict]) -> str:
    """By how much mIoU differs, seed by seed: the mean, and its sample standard deviation where there are several."""
    key = itemgetter('split', 'seed')
    before = {key(one): one['mean_of_last_five']['mIoU'] for one in own}
    values = [one['mean_of_last_five']['mIoU'] - before[key(one)] for one in results if key(one) in before]
    if not values:
        return NONE
    return f'{statistics.mean(values):+.2f}' + (f' ± {statistics.stdev(values):.2f}' if len(values) > 1 else '')


def as_text(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a console."""
    table = PrettyTable([f'{name}{" " * i}' for i, name in enumerate(head)])  # names must differ
    table.align = 'l'
    table.add_rows([list(row) for row in rows])
    return table.get_string()


def as_markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a document."""
    return '\n'.join(f'| {" | ".join(line)} |' for line in (head, ['---'] * len(head), *rows))


def warnings(results: Iterable[dict]) -> list[str]:
    """What makes figures of the table hard to compare."""
    partitions: dict[tuple, dict[str, list[str]]] = {}
    for one in results:
        if one['split']:
            key = one['split'], one['seed']
            partitions.setdefault(key, {}).setdefault(one['partition'], []).append(one['row'])
    return [f'The rows of {split} with seed {seed} have different partitions: '
            f'{" and ".join(", ".join(rows) for rows in found.values())}; they were made with other images.'
            for (split, seed), found in partitions.items() if len(found) > 1]
