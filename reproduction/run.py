"""One training of a table: a row, a split, a seed."""
import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from fedseg_mm.config import find_config, load_config, parse_options, short_path
from reproduction.protocol import Protocol
from reproduction.row_results import RowResults

#: Settings that say where a run is and what it logs, and change no figure.
ELSEWHERE = ('work_dir', 'launcher', 'resume', 'log_level', 'log_processor', 'visualizer', 'vis_backends')


def hash_config(cfg: Config) -> str:
    """The hash of all settings that may change a figure; the same on every machine.

    Args:
        cfg (Config): The config, with what it inherits and with options.

    Returns:
        str: SHA-256 of its text, without folders and settings of logs.
    """

    def without_folders(value):
        if isinstance(value, dict):
            return {key: without_folders(item) for key, item in value.items() if key != 'data_root'}
        return [without_folders(item) for item in value] if isinstance(value, (list, tuple)) else value

    settings = {key: value for key, value in cfg.to_dict().items() if key not in ELSEWHERE}
    (settings.get('default_hooks') or {}).pop('logger', None)
    # not MMEngine's text of a config, which is laid out anew with every version of a formatter
    text = json.dumps(without_folders(settings), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Run:
    """A row of the table with a split and a seed, and where its files are.

    Args:
        protocol (Protocol): Whose run it is.
        row (str): The row.
        split (str or None): The split, if the row has one.
        seed (int): The seed of the training and of the partition.
        options (tuple[str, ...]): Further ``--cfg-options``.
        work_dirs (Path): The folder in which runs have their work dirs.
        results (Path): The folder of all results.
    """
    protocol: Protocol
    row: str
    split: str | None
    seed: int
    options: tuple[str, ...]
    work_dirs: Path
    results: Path

    @property
    def config(self) -> str:
        """The config's name in ``configs``."""
        return self.protocol.configs[self.row].format(split=self.split)

    @cached_property
    def config_file(self) -> str:
        own = Path(self.config).is_absolute()
        return self.config if own else short_path(Path(find_config(f'fedseg_mm::{self.config}')).resolve())

    @property
    def cfg_options(self) -> list[str]:
        """A seed changes both: rows with the same one share the partition."""
        return [f'randomness.seed={self.seed}', f'federated.partitioner.seed={self.seed}',
                *self.protocol.cfg_options(self.row), *self.options]

    @cached_property
    def cfg(self) -> Config:
        """The config as the training has it."""
        logging.disable(logging.INFO)  # MMEngine says of every file which environment variable it names
        try:
            return load_config(self.config_file, parse_options(self.cfg_options))
        finally:
            logging.disable(logging.NOTSET)

    @cached_property
    def config_hash(self) -> str:
        return hash_config(self.cfg)

    @property
    def rounds(self) -> int:
        return self.cfg.train_cfg.max_rounds

    @property
    def name(self) -> str:
        """What it is called; with further options, the config's hash tells it from the protocol's own."""
        parts = [self.row, self.split, f'seed{self.seed}', self.config_hash[:8] if self.options else None]
        return '_'.join(part for part in parts if part)

    @property
    def folder(self) -> Path:
        """The work dir. A changed config has another, as nothing may be resumed in this one."""
        name = f'{self.name.removesuffix("_" + self.config_hash[:8])}_{self.config_hash[:8]}'
        return self.work_dirs / self.protocol.name / name

    @property
    def log(self) -> Path:
        """All that the training prints."""
        return self.folder / 'train.log'

    @property
    def result_file(self) -> Path:
        """The file of all results of its row."""
        return self.results / self.protocol.name / f'{self.row}.json'

    def result(self) -> dict | None:
        """The run's result, if it is complete and of these settings."""
        result = RowResults(self.result_file).find(self.split, self.seed, list(self.options))
        return result if result and result['config_hash'] == self.config_hash else None
