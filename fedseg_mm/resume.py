"""From which checkpoint a run goes on; nothing here changes a file."""
import logging
import os.path as osp
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from fedseg_mm.checkpoints import load_weights_only
from fedseg_mm.errors import FedSegError, shown

#: Where what clients keep is, in a work dir; a run that starts beside an earlier one has a number too.
CLIENTS_FOLDER = re.compile(r'clients(_\d+)?')


@dataclass(frozen=True)
class CheckpointFile:
    """What a checkpoint says of the run that wrote it.

    Args:
        path (Path): The file.
        rounds (int): Rounds that it has behind it.
        written (tuple[str, int]): When it was written, to the second and, if
            known, to the nanosecond; later is greater.
        clients (Mapping[int, int]): Rounds behind the state of every client
            that had one. Defaults to none.
        folder (str): The folder of these states, in the work dir. Defaults
            to ``clients``.
        seed (int, optional): The run's seed. Defaults to None: unknown.
        settings (Mapping, optional): The run's settings, by dotted key.
            Defaults to None: unknown.
        schedules (tuple[Mapping]): The state of the schedules. Defaults to
            none.
        has_rates (bool): Whether it holds the optimizer's rates. Defaults to
            True.
    """
    path: Path
    rounds: int
    written: tuple[str, int]
    clients: Mapping[int, int] = field(default_factory=dict)
    folder: str = 'clients'
    seed: int | None = None
    settings: Mapping | None = None
    schedules: tuple[Mapping, ...] = ()
    has_rates: bool = True


def written_last(work_dir: str | Path) -> tuple[str, int] | None:
    """The checkpoint of a work dir that was written last, and when (ns)."""
    file = Path(work_dir) / 'last_checkpoint'
    return (file.read_text(), file.stat().st_mtime_ns) if file.is_file() else None


def clients_folder(federated: Mapping | None) -> str:
    """The folder of the clients' states that a checkpoint's ``federated`` names.

    Raises:
        FedSegError: It is no name that a run gives.
    """
    name = (federated or {}).get('clients_folder', 'clients')
    if not isinstance(name, str) or not CLIENTS_FOLDER.fullmatch(name):
        raise FedSegError(f'the checkpoint names {name!r} as the folder of its clients, which no run of fedseg_mm has '
                          'written: do not use it')
    return name


def kept_rounds(federated: Mapping | None) -> dict[int, int]:
    """Rounds behind what each client has kept, as a checkpoint's ``federated`` says.

    Raises:
        FedSegError: It says something else, which would become the names of files.
    """
    clients = (federated or {}).get('clients') or {}
    if not isinstance(clients, dict) or not all(type(value) is int for item in clients.items() for value in item):
        raise FedSegError(f'the checkpoint says {shown(clients)} of what its clients keep, which no run of fedseg_mm '
                          'has written: do not use it')
    return clients


def read_checkpoint(path: str | Path) -> CheckpointFile:
    """Look into a checkpoint; its weights stay on disk.

    Raises:
        FedSegError: It is missing or cannot be read.
    """
    content = load_weights_only(str(path), 'cpu', mmap=True)
    meta, federated = content.get('meta'), content.get('federated')
    meta, federated = meta if isinstance(meta, dict) else {}, federated if isinstance(federated, dict) else {}
    rounds = meta.get('epoch', 0)
    schedules, settings = content.get('param_schedulers'), federated.get('settings')
    nanoseconds = federated.get('written')
    written = (str(meta.get('time', '')), nanoseconds if isinstance(nanoseconds, int) else 0)
    return CheckpointFile(
        Path(path), rounds if isinstance(rounds, int) else 0, written,
        kept_rounds(federated), clients_folder(federated), meta.get('seed'),
        settings if isinstance(settings, dict) else None, tuple(schedules) if isinstance(schedules, list) else (),
        'optimizer' in content)


def is_whole(path: Path) -> bool:
    """Whether all of a checkpoint is as it was written: torch's files hold a sum of every tensor."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except Exception:  # a damaged file may raise anything
        return False


def named_checkpoint(path: str) -> CheckpointFile:
    """The checkpoint that ``--resume FILE`` names.

    Raises:
        FedSegError: It is missing or damaged.
    """
    file = read_checkpoint(path)
    if zipfile.is_zipfile(path) and not is_whole(file.path):
        raise FedSegError(f'the checkpoint {path} cannot be resumed, because it is damaged: restore a copy, or '
                          'name another one')
    return file


def checkpoint_folder(cfg: Mapping, work_dir: str) -> Path:
    """Where the checkpoints of a run are."""
    out_dir = _checkpoint_hook(cfg).get('out_dir')
    return Path(work_dir) if out_dir is None else Path(out_dir) / osp.basename(str(work_dir).rstrip(osp.sep))


def _checkpoint_hook(cfg: Mapping) -> Mapping:
    return (cfg.get('default_hooks') or {}).get('checkpoint') or {}


def _named(work_dir: str) -> str:
    """The name of the file that was written last, as MMEngine notes it; empty if it does not."""
    try:
        return osp.basename(Path(work_dir, 'last_checkpoint').read_text().strip())
    except (OSError, UnicodeDecodeError):
        return ''


def checkpoint_paths(cfg: Mapping, work_dir: str) -> list[Path]:
    """The checkpoints of a work dir, in the order of their rounds."""
    folder, template = checkpoint_folder(cfg, work_dir), _checkpoint_hook(cfg).get('filename_tmpl') or 'epoch_{}.pth'
    pattern = re.compile(re.escape(template).replace(r'\{\}', r'(\d+)'))
    found = {path: int(match[1]) for path in (folder.iterdir() if folder.is_dir() else ())
             if (match := pattern.fullmatch(path.name)) and match.groups()}
    named = _named(work_dir)
    if named and (folder / named).is_file():
        found.setdefault(folder / named, -1)
    return sorted(found, key=lambda path: found[path])


def checkpoints_of(cfg: Mapping, work_dir: str) -> Iterator[CheckpointFile]:
    """What can be read of a work dir's checkpoints; the one that was written last comes first."""
    found = []
    for path in checkpoint_paths(cfg, work_dir):
        try:
            found.append(read_checkpoint(path))
        except FedSegError:
            continue
    yield from sorted(found, key=lambda file: (file.written, file.rounds), reverse=True)


def latest_checkpoint(cfg: Mapping, work_dir: str, quiet: bool = False) -> CheckpointFile | None:
    """What ``--resume`` goes on from: the whole checkpoint in the work dir that was written last.

    Not the one of most rounds: a run that was started anew, or went on from
    an older file, may stand beside later rounds of the one before.

    Args:
        cfg (Mapping): The config, for the checkpoints' names.
        work_dir (str): The work dir.
        quiet (bool): Whether nothing is said of others. Defaults to False.

    Returns:
        CheckpointFile, optional: None if there is none.

    Raises:
        FedSegError: There are checkpoints, but none is whole.
    """
    paths, named = checkpoint_paths(cfg, work_dir), _named(work_dir)
    chosen = next((file for file in checkpoints_of(cfg, work_dir) if is_whole(file.path)), None)
    if chosen is None:
        if paths:
            raise FedSegError(f'no checkpoint in {paths[-1].parent} can be resumed: {paths[-1].name} is damaged '
                              'or cut off and no other is whole: restore a copy, or start again without --resume')
        if named:
            raise FedSegError(f'{work_dir}/last_checkpoint names {named}, which is not in '
                              f'{checkpoint_folder(cfg, work_dir)}: restore it, or remove last_checkpoint to start '
                              'again')
        return None
    if not quiet:
        later = paths[paths.index(chosen.path) + 1:] + [path for path in paths if path.name == named]
        damaged = [path.name for path in dict.fromkeys(later) if path != chosen.path and not is_whole(path)]
        if damaged:
            print_log(f'--resume: {", ".join(damaged)} in {chosen.path.parent} {"are" if len(damaged) > 1 else "is"} '
                      f'damaged or cut off, and the run goes on from {chosen.path.name}.', 'current',
                      level=logging.WARNING)
        elif named and named != chosen.path.name:
            print_log(f'--resume: last_checkpoint names {named}, but {chosen.path.name} was written later and is '
                      f'resumed; --resume {checkpoint_folder(cfg, work_dir) / named} would go on from the other.',
                      'current', level=logging.WARNING)
    return chosen


def settle_resume(cfg: Config, wanted: str | bool) -> tuple[bool, str | None]:
    """What ``--resume`` asks for, as MMEngine's runner has it.

    Args:
        cfg (Config): The whole config.
        wanted (str or bool): A checkpoint; True for the latest of the work
            dir, if there is one; False for what the config says.

    Returns:
        tuple[bool, str or None]: Whether the run goes on from a checkpoint,
        and the file to load; None where it goes on from the work dir's latest
        checkpoint, or starts without one.

    Raises:
        FedSegError: The checkpoint is missing, or none of the work dir's is
            whole.
    """
    load_from = cfg.get('load_from')
    # a config that names both goes on from that file, as in MMEngine
    file = load_from if not wanted and cfg.get('resume') else wanted
    if isinstance(file, str):
        path = Path(file).expanduser()
        if not path.is_file():
            what = 'is a folder' if path.is_dir() else 'does not exist'
            raise FedSegError(f'the checkpoint {file} to resume from {what}: name a file such as '
                              f'{Path(cfg.work_dir) / "round_10.pth"}, or use --resume alone for the latest')
        return True, str(path)
    if not wanted and not cfg.get('resume'):
        return False, load_from
    if latest_checkpoint(cfg, cfg.work_dir, quiet=True) is not None:
        return True, None  # the training loop takes it, and says so in the run's log
    weights = f' from the weights in {load_from}' if load_from else ''
    print_log(f'--resume: there is no checkpoint in {cfg.work_dir}, training starts with round 1{weights}.',
              'current', level=logging.WARNING)
    return False, load_from
