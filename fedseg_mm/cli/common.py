"""What the command line tools share: arguments, processes, one-sentence errors."""
import argparse
import datetime
import difflib
import errno
import os
import re
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import mmseg.registry
import torch
from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.registry import Registry

from fedseg_mm.config import load_config
from fedseg_mm.console import as_called, called
from fedseg_mm.errors import FedSegError, reason


def config_of(args: argparse.Namespace) -> Config:
    """The config that a tool's arguments name, with all that they add to it.

    Raises:
        FedSegError: The file is missing or no config, or the options do not
            fit it.
    """
    cfg = load_config(args.config, args.cfg_options, getattr(args, 'federated', None), args.work_dir,
                      getattr(args, 'data', None))
    if hasattr(args, 'launcher'):
        cfg.launcher = args.launcher
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return cfg


#: Seconds after which a process stops waiting for another.
PATIENCE = 7200
#: What may be wrong with a folder or a disk; other errors of the system are not the user's to fix.
DISK_ERRORS = {
    errno.ENOSPC: 'free some space', errno.EDQUOT: 'free some space', errno.EFBIG: 'use another disk',
    errno.EROFS: 'name another folder', errno.EACCES: 'name a folder that you may write to',
    errno.EPERM: 'name a folder that you may write to', errno.EEXIST: 'remove the file or name another folder',
    errno.ENOTDIR: 'remove the file or name another folder', errno.EISDIR: 'remove the folder or name another file',
    errno.ENAMETOOLONG: 'choose a shorter name', errno.EIO: 'use another disk'}


def _what_the_disk_said(error: OSError) -> str:
    where = f' ({error.filename2 or error.filename})' if error.filename else ''
    return f'{os.strerror(error.errno or 0)}{where}: {DISK_ERRORS[error.errno or 0]} and start again'


@contextmanager
def one_sentence_errors(tool: str) -> Iterator[None]:
    """Print what the user can fix, one sentence per fault, and exit with 1."""
    tool = called(tool)
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        sys.exit(128 + signal.SIGPIPE)
    except FedSegError as error:
        sys.exit('\n'.join(f'{tool}: {sentence}' for sentence in str(error).splitlines()))
    except (AssertionError, TypeError, ValueError, OSError) as error:
        if 'is not in the pretrained model' in str(error):
            sys.exit(f'{tool}: {error}: check the `prefix` of the init_cfg')
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            sys.exit(f'{tool}: {_what_the_disk_said(error)}')
        sentence = _what_could_not_be_built(error)
        if sentence is None:
            raise
        sys.exit(f'{tool}: {sentence}')
    except KeyError as error:
        if 'must contain the key "type"' in str(error):
            part = str(error.args[0]).split('but got ')[-1].splitlines()[0]
            sys.exit(f'{tool}: a part of the config has no `type`: {part[:150]}{"…" if len(part) > 150 else ""}')
        if 'is not in the' not in str(error):
            raise
        sys.exit(f'{tool}: {_which_type_is_unknown(str(error.args[0]))}')
    except KeyboardInterrupt as error:
        print(f'\n{tool}: stopped{f"; {error}" if str(error) else ""}', file=sys.stderr)
        sys.exit(getattr(error, 'exit_code', 130))


def _which_type_is_unknown(words: str) -> str:
    """MMEngine's sentence on a type that nobody registered, with the nearest one that somebody did."""
    sentence = words.split('. ')[0]
    found = re.match(r'(\S+) is not in the (\S+)::(.+) registry', sentence)
    registry = found and next((one for one in vars(mmseg.registry).values() if isinstance(one, Registry)
                               and one.name == found[3]), None)
    if not found or registry is None:
        return sentence
    known = [*registry.module_dict, *getattr(registry.parent, 'module_dict', ())]
    near = difflib.get_close_matches(found[1], known, n=1)
    return f'{sentence}{f": did you mean {near[0]}?" if near else ""}'


def _reader_is_gone() -> bool:
    """Whether what reads the output, as ``head`` does, has read enough; what is still to be written is then dropped."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _what_could_not_be_built(error: Exception) -> str | None:
    """A sentence on a part of OpenMMLab's or a third party's that refuses what the config gives it."""
    built, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_name == 'build_from_cfg':
            built = frame.tb_frame.f_locals.get('obj_cls')
        elif built is not None and frame.tb_frame.f_code.co_name != '__init__':
            built = None if isinstance(error, TypeError) else built  # an error within it, and not in its arguments
        frame = frame.tb_next
    if not isinstance(built, type) or built.__module__.startswith('fedseg_mm.'):
        return None
    return f'{built.__name__} cannot be built as the config says: {reason(error)}'


def refuse_initial_model(checkpoint: dict, path: str) -> None:
    """Refuse what LocalOnly saves: a model that nobody has trained.

    Raises:
        FedSegError: It is such a checkpoint.
    """
    if (checkpoint.get('federated') or {}).get('type') == 'LocalOnly':
        raise FedSegError(f'the checkpoint {path} of LocalOnly holds the initial model, because every client has a '
                          "model of its own: the clients' figures are in vis_data/clients.json of the training")


@contextmanager
def joined_processes(cfg: Config) -> Iterator[None]:
    """A run of several processes, each of which trains whole clients; changes ``cfg`` in place.

    Raises:
        FedSegError: The launcher's processes cannot be joined here.
    """
    if cfg.get('launcher', 'none') == 'none':
        yield
        return
    cfg.model_wrapper_cfg = dict(type='ClientParallel')
    # a process may wait for another's label scan, or for its clients, longer than NCCL's ten minutes
    cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {}).setdefault('timeout', PATIENCE)
    devices = torch.cuda.device_count()
    if devices == 0:
        if cfg.launcher != 'pytorch':
            raise FedSegError(f'--launcher {cfg.launcher} needs GPUs, and there are none: use --launcher pytorch')
        if 'RANK' not in os.environ:
            command = as_called('torchrun --nproc_per_node=2 tools/fed_train.py CONFIG --launcher pytorch')
            raise FedSegError(f'--launcher pytorch is for processes started by torchrun: {command}')
        # MMEngine would ask for a GPU; it takes the processes as they are if they are joined already
        torch.distributed.init_process_group('gloo', timeout=datetime.timedelta(seconds=PATIENCE))
    elif int(os.environ.get('LOCAL_WORLD_SIZE', 1)) > devices:
        os.environ['LOCAL_RANK'] = str(int(os.environ['LOCAL_RANK']) % devices)
        # nccl takes one process per GPU
        cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})['backend'] = 'gloo'
    try:
        yield
        barrier()  # the first process may still be writing
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
