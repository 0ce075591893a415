"""Which rows a table has, and which configs make them."""
from collections.abc import Mapping
from dataclasses import dataclass, field

SPLITS = ('noniid1', 'noniid2')
METHODS = ('CE', 'BackCE', 'FedProx', 'FedDyn', 'MOON', 'FedSeg')
#: What methods are compared with: no federations.
BOUNDS = ('centralised', 'centralised-masked', 'local-only')


@dataclass(frozen=True)
class Protocol:
    """The runs of one table.

    Args:
        name (str): The name, which is also that of its folder of results.
        configs (Mapping[str, str]): The config of every row, with
            ``{split}`` in its name if the row has one per split.
        more_seeds (Mapping[str, tuple[int, ...]]): Seeds besides 0 that a row
            is run with if none are asked for.
        options (tuple[str, ...]): ``--cfg-options`` of all rows.
        row_options (Mapping[str, tuple[str, ...]]): Those of single rows, by
            which rows that share a config differ.
        local_epochs (Mapping[str, tuple[str, int]]): Method and local epochs of
            the rows, where these are what rows differ by.
        published (bool): Whether the paper has figures for the rows, on both
            splits of CamVid. Defaults to True.
        gpu (bool): Whether it is meant for a GPU. Defaults to False.
        jobs (int): Trainings side by side. Defaults to 1.
    """
    name: str
    configs: Mapping[str, str]
    more_seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    row_options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    local_epochs: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    published: bool = True
    gpu: bool = False
    jobs: int = 1

    def splits(self, row: str) -> tuple[str | None, ...]:
        """The splits of a row; None is that of a row without any."""
        return SPLITS if '{split}' in self.configs[row] else (None, )

    def cfg_options(self, row: str) -> tuple[str, ...]:
        """What the protocol adds to a row's config."""
        return (*self.options, *self.row_options.get(row, ()))

    def seeds(self, row: str) -> tuple[int, ...]:
        return (0, *self.more_seeds.get(row, ()))


def _methods(model: str) -> dict[str, str]:
    """The configs of the paper's rows with one of the models."""
    others = {row: f'{row.lower()}/{model}_{{split}}.py' for row in METHODS[2:]}
    return {'CE': f'fedavg/{model}_{{split}}_ce.py', 'BackCE': f'fedavg/{model}_{{split}}_backce.py', **others}


def _bounds(model: str) -> dict[str, str]:
    return {'centralised': f'centralised/{model}.py', 'centralised-masked': f'centralised/{model}_{{split}}_masked.py',
            'local-only': f'local_only/{model}_{{split}}.py'}


_SMALL = 'upernet_camvid160x120'
_PRETRAINED = 'lite0_camvid240x180'
#: BackCE that balances, alone and under the methods.
_BALANCE = ('model.decode_head.loss_decode.balance_power=0.5', )
_BALANCED = {f'{row}-balanced': row for row in METHODS[1:]}
_PRETRAINED_ROWS = _methods(_PRETRAINED)
_PRETRAINED_CONFIGS = {**_PRETRAINED_ROWS, **{name: _PRETRAINED_ROWS[row] for name, row in _BALANCED.items()},
                       **_bounds(_PRETRAINED)}
#: Trains on CamVid's own 367 images for training (the second data set is left empty, which MMEngine cannot serialise)
#: and evaluates on its own 101 for validation.
_HELD_OUT = ('train_dataloader.dataset.datasets.1.indices=0',
             'train_dataloader.dataset.datasets.1.serialize_data=False',
             'val_dataloader.dataset.data_prefix.img_path=img_dir/val',
             'val_dataloader.dataset.data_prefix.seg_map_path=ann_dir/val')
#: Local epochs, and what makes rounds of so many come to the 80 passes of the protocol over a client's images, with the
#: last seventh (of 8 epochs: fifth) of them at the low rate, and the last five rounds evaluated.
_LOCAL_EPOCHS = {
    1: ('train_cfg.max_rounds=80', 'train_cfg.val_interval=20', 'train_cfg.dynamic_intervals=[(77,1)]',
        'param_scheduler.0.milestones=[68]'),
    2: (),
    4: ('train_cfg.max_rounds=20', 'train_cfg.val_interval=5', 'train_cfg.dynamic_intervals=[(17,1)]',
        'param_scheduler.0.milestones=[17]'),
    8: ('train_cfg.max_rounds=10', 'train_cfg.val_interval=2', 'train_cfg.dynamic_intervals=[(7,1)]',
        'param_scheduler.0.milestones=[8]')}
_EPOCH_ROWS = {f'{row}-{epochs}': (row, epochs) for row in ('BackCE', 'FedProx', 'FedSeg') for epochs in _LOCAL_EPOCHS}
#: Losses beside BackCE, on the embedded data set.
_LOSSES = ('ce', 'bce', 'dice', 'tversky', 'lovasz', 'hausdorff')
_DEMO = 'upernet_streetscenes_noniid1_backce'
_LOSS_CONFIGS = {'BackCE': f'fedavg/{_DEMO}.py', **{f'BackCE-{loss}': f'losses/{_DEMO}_{loss}.py' for loss in _LOSSES}}
PROTOCOLS = {
    'cpu': Protocol(
        'cpu', {
            **_methods(_SMALL),
            **_bounds(_SMALL)
        }, more_seeds={row: (1, 2) for row in ('CE', 'BackCE', 'FedSeg', 'centralised-masked')}, jobs=2),
    'cpu-pretrained': Protocol(
        'cpu-pretrained', _PRETRAINED_CONFIGS,
        more_seeds={row: (1, 2) for row in _PRETRAINED_CONFIGS if row != 'local-only'},
        row_options=dict.fromkeys(_BALANCED, _BALANCE), jobs=2),
    # the same rows while settings are chosen: what the test images show is not looked at
    'cpu-pretrained-held-out': Protocol(
        'cpu-pretrained-held-out', _PRETRAINED_CONFIGS, options=_HELD_OUT,
        row_options=dict.fromkeys(_BALANCED, _BALANCE), jobs=2),
    'local-epochs': Protocol(
        'local-epochs', {name: _PRETRAINED_ROWS[row] for name, (row, _) in _EPOCH_ROWS.items()},
        row_options={name: (f'federated.local_epochs={epochs}', *_LOCAL_EPOCHS[epochs]) if epochs != 2 else ()
                     for name, (_, epochs) in _EPOCH_ROWS.items()},
        local_epochs=_EPOCH_ROWS, published=False, jobs=2),
    'losses': Protocol(
        'losses', _LOSS_CONFIGS, more_seeds=dict.fromkeys(_LOSS_CONFIGS, (1, 2)),
        options=('train_cfg.max_rounds=30', 'train_cfg.dynamic_intervals=[(26,1)]'), published=False, jobs=2),
    'paper': Protocol('paper', _methods('bisenetv2_camvid'), gpu=True),
}
