"""Which rows a table has, and which configs make them."""
from collections.abc import Mapping
from dataclasses import dataclass, field

SPLITS = ('noniid1', 'noniid2')
METHODS = ('CE', 'BackCE', 'FedProx', 'FedDyn', 'MOON', 'FedSeg')


@dataclass(frozen=True)
class Protocol:
    """The runs of one table.

    Args:
        name (str): The name, which is also that of its folder of results.
        configs (Mapping[str, str]): The config of every row, with
            ``{split}`` in its name if the row has one per split.
        more_seeds (Mapping[str, tuple[int, ...]]): Seeds besides 0 that a row
            is run with if none are asked for.
        gpu (bool): Whether it is meant for a GPU. Defaults to False.
        jobs (int): Trainings side by side. Defaults to 1.
    """
    name: str
    configs: Mapping[str, str]
    more_seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    gpu: bool = False
    jobs: int = 1

    def splits(self, row: str) -> tuple[str | None, ...]:
        """The splits of a row; None is that of a row without any."""
        return SPLITS if '{split}' in self.configs[row] else (None, )

    def seeds(self, row: str) -> tuple[int, ...]:
        return (0, *self.more_seeds.get(row, ()))


def _methods(model: str) -> dict[str, str]:
    """The configs of the paper's rows with one of the models."""
    others = {row: f'{row.lower()}/{model}_{{split}}.py' for row in METHODS[2:]}
    return {'CE': f'fedavg/{model}_{{split}}_ce.py', 'BackCE': f'fedavg/{model}_{{split}}_backce.py', **others}


_SMALL = 'upernet_camvid160x120'
PROTOCOLS = {
    'cpu': Protocol(
        'cpu', {
            **_methods(_SMALL),
            'centralised': f'centralised/{_SMALL}.py',
            'centralised-masked': f'centralised/{_SMALL}_{{split}}_masked.py',
            'local-only': f'local_only/{_SMALL}_{{split}}.py'
        }, more_seeds={row: (1, 2) for row in ('CE', 'BackCE', 'FedSeg', 'centralised-masked')}, jobs=2),
    'paper': Protocol('paper', _methods('bisenetv2_camvid'), gpu=True),
}
