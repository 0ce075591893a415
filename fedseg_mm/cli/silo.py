"""Sites whose images stay where they are: kits, server, sites and trainings across them."""
import argparse
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prettytable import PrettyTable

from fedseg_mm.cli import arguments
from fedseg_mm.console import as_called, called, command
from fedseg_mm.errors import FedSegError

#: Locks of the process that runs a kit, and of the one that trains over all kits.
KEEPER, TRAINING = 'keeper.lock', 'training.lock'


def main(argv: list[str] | None = None) -> None:
    args = arguments.silo(argv)
    with _one_sentence_errors():
        try:
            import nvflare  # noqa: F401
        except ImportError:
            raise FedSegError("silos need NVFLARE: pip install 'fedseg_mm[silos]', or in a checkout pip install -e "
                              '".[silos]" -c requirements/tested.txt') from None
        ACTIONS[args.action](args)


@contextmanager
def _one_sentence_errors() -> Iterator[None]:
    """Print what the user can mend, a sentence per fault, and exit with 1; as other tools do, without torch."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # what reads the output, as `head` does, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except FedSegError as error:
        sys.exit('\n'.join(f'{called("fed_silo")}: {sentence}' for sentence in str(error).splitlines()))
    except OSError as error:
        if error.errno is None or error.filename is None:
            raise
        sys.exit(f'{called("fed_silo")}: {os.strerror(error.errno)} ({error.filename})')


def _provision(args: argparse.Namespace) -> None:
    from fedseg_mm.silos.kits import provision
    from fedseg_mm.silos.site_config import TEMPLATE
    kits = provision(args.folder, args.sites, args.server, args.port)
    for kit in kits[2:]:
        (kit / 'site.yaml').write_text(TEMPLATE, encoding='utf-8')
    tool = as_called('python tools/fed_silo.py')
    print(f'The kits are in {args.folder}. Each holds a private key: bring sites/NAME to its site on a way that you '
          'trust, and keep authority/ where nobody else can read it.\n'
          f'  the server   {tool} serve {args.folder}/server   (sites reach it as {args.server}, port {args.port})\n'
          f'  each site    {tool} start NAME   once NAME/site.yaml names its images\n'
          f'  the server   {tool} train CONFIG --kits {args.folder}')


@contextmanager
def _alone(kit: Path, name: str, sentence: str) -> Iterator[None]:
    """Hold a lock in a kit, which ends with this process however that ends.

    Args:
        kit (Path): The startup kit.
        name (str): The lock.
        sentence (str): What to say if another process holds it; ``{pid}`` is
            its number.

    Raises:
        FedSegError: It does.
    """
    from fedseg_mm.silos import wire
    with (wire.run_folder(kit) / name).open('a+', encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FedSegError(sentence.format(pid=_holder(kit, name))) from None
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        yield


def _holder(kit: Path, name: str) -> int | None:
    """The process that holds a lock in a kit."""
    try:
        with (kit / 'run' / name).open(encoding='utf-8') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read())
    except FileNotFoundError:
        pass
    return None


def _run_alone(kit: Path):
    """Be the one process that runs a kit here."""
    stop = f'{as_called("python tools/fed_silo.py")} stop {kit}'
    return _alone(kit, KEEPER, f'{kit} is run already, by the process {{pid}}: stop that first, with {stop}')


def _serve(args: argparse.Namespace) -> None:
    from fedseg_mm.silos.keep_up import Kept, keep_up
    from fedseg_mm.silos.kits import kind_of, nvflare_command, write_policy
    kit = args.kit.resolve()
    if kind_of(kit) != 'server':
        raise FedSegError(f'{kit} is the kit of a site: `start` runs it')
    with _run_alone(kit):
        write_policy(kit)
        print(f'The server runs, until it is stopped; NVFLARE writes to {kit / "run" / "nvflare.log"}.', flush=True)
        keep_up([Kept('NVFLARE', *nvflare_command(kit), kit / 'run' / 'nvflare.log')])


def _start(args: argparse.Namespace) -> None:
    from fedseg_mm.silos.desk import ANEW
    from fedseg_mm.silos.keep_up import Kept, keep_up
    from fedseg_mm.silos.kits import kind_of, nvflare_command, server_of, site_name, write_policy
    from fedseg_mm.silos.log_watch import TRAINER, LogWatch, nvflare_sentences
    from fedseg_mm.silos.site_config import SiteConfig
    kit = args.kit.resolve()
    if kind_of(kit) != 'site':
        raise FedSegError(f'{kit} is the kit of the server: `serve` runs it')
    file = (args.config or kit / 'site.yaml').resolve()
    config = SiteConfig.read(file)
    if args.check:
        print(f'{file} is right.')
        return
    with _run_alone(kit):
        write_policy(kit)
        run = kit / 'run'
        environment = {**os.environ, **({'CUDA_VISIBLE_DEVICES': ''} if config.device == 'cpu' else {})}
        name, target = site_name(kit), server_of(kit)
        print(f'The site {name} runs, until it is stopped; the logs are {run / "trainer.log"} and '
              f'{run / "nvflare.log"}.', flush=True)
        watches = [LogWatch(run / 'trainer.log', TRAINER),
                   LogWatch(run / 'nvflare.log', nvflare_sentences(kit, name, target))]
        trainer = [sys.executable, '-m', 'fedseg_mm.silos.trainer_process', str(kit), str(file)]
        keep_up([Kept("the site's trainer", trainer, environment, run / 'trainer.log', at_once=ANEW),
                 Kept('NVFLARE', *nvflare_command(kit), run / 'nvflare.log')], watches)


def _train(args: argparse.Namespace) -> None:
    if args.once:
        _train_once(args)
        return
    from fedseg_mm.silos.kits import sites_of
    kit = args.kits.resolve() / 'server'
    sites_of(kit)  # before anything is written there
    with _alone(kit, TRAINING, f'the process {{pid}} trains over {args.kits} already, and sites do one training at a '
                               'time: wait for its end, or stop it with kill {pid}'):
        sys.exit(keep_training([word for word in sys.argv[1:] if word != '--once']))


def keep_training(words: list[str]) -> int:
    """Train in a process of its own, and in another one when that is killed.

    Args:
        words (list[str]): The command line.

    Returns:
        int: The exit status.
    """
    from fedseg_mm.silos.keep_up import STEADY
    from fedseg_mm.tool_process import end_with_parent
    begun, again, pause, stopped = time.time(), False, 1.0, []

    def hand_on(number: int, _) -> None:
        stopped.append(number)
        if number != signal.SIGINT and child is not None:  # which a terminal sends to both
            child.send_signal(number)

    child: subprocess.Popen | None = None
    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while not stopped:
            # called as this one is, so that it names commands as the user knows them
            program = ['-m', 'fedseg_mm'] if command() == 'python -m fedseg_mm' else sys.argv[:1]
            own = [sys.executable, *program, *words, '--once', *(['--again', str(begun)] if again else [])]
            started = time.monotonic()
            child = subprocess.Popen(own, preexec_fn=end_with_parent)
            if stopped:  # while it was being started
                child.terminate()
            code = child.wait()
            if code >= 0 or stopped:  # it may have been too young to end by itself
                return code if code >= 0 else 128 - code
            again = True
            print(f'{called("fed_silo")}: the training was ended by {signal.Signals(-code).name}, and goes on from its '
                  'last checkpoint.', file=sys.stderr, flush=True)
            pause = 1.0 if time.monotonic() - started > STEADY else min(2 * pause, 60.0)
            until = time.monotonic() + pause
            while time.monotonic() < until and not stopped:
                time.sleep(0.1)
        return 128 + stopped[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _train_once(args: argparse.Namespace) -> None:
    from fedseg_mm.cli.common import config_of, one_sentence_errors
    from fedseg_mm.cli.train import run
    from fedseg_mm.silos.kits import sites_of
    with one_sentence_errors('fed_silo'):
        cfg = config_of(args)
        sites = sites_of(args.kits / 'server')
        federated = dict(cfg.get('federated') or {})
        backend = {key: value for key, value in (federated.get('backend') or {}).items()
                   if key in ('site_timeout', 'client_time_limit')}
        federated.update(partitioner=dict(type='SitesPartitioner'),
                         backend=dict(type='NVFlareBackend', kits=str(args.kits.resolve()), **backend))
        if isinstance(federated.get('clients_per_round'), int) and federated['clients_per_round'] > len(sites):
            federated['clients_per_round'] = len(sites)  # of a config that was written for more clients
        cfg.federated = federated
        if args.again is not None and _has_saved(cfg, args.again):
            args.resume = True
        run(cfg, args, loaders=())


def _has_saved(cfg, begun: float) -> bool:
    """Whether the latest checkpoint in the work dir is of a training that began then, and not of one before."""
    from fedseg_mm.resume import latest_checkpoint
    try:
        found = latest_checkpoint(cfg, cfg.work_dir, quiet=True)
    except FedSegError:
        return False
    return found is not None and found.path.stat().st_mtime >= begun


def _status(args: argparse.Namespace) -> None:
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    from fedseg_mm.silos.job import NAME
    from fedseg_mm.silos.kits import ADMIN, sites_of
    sites = sites_of(args.kits / 'server')
    logging.disable(logging.ERROR)  # NVFLARE's, of what is said below in a sentence
    try:
        session = new_secure_session(ADMIN, str(args.kits.resolve() / 'admin'), timeout=10.0)
    except Exception as error:  # NVFLARE's own, of many kinds
        raise FedSegError(f'the server does not answer ({" ".join(str(error).split())[:120] or type(error).__name__}): '
                          f'{as_called("python tools/fed_silo.py")} serve {args.kits}/server runs it') from error
    try:
        heard = {client.name: client.last_connect_time for client in session.get_connected_client_list()}
        jobs = {client.get('client_name'): client.get('job_id') for client in session.get_client_job_status() or ()}
        running = [job for job in session.list_jobs() if job['job_name'] == NAME
                   and not job['status'].startswith('FINISHED')]
    finally:
        session.close()
    table = PrettyTable(['site', 'connected', 'takes part'])
    for name in sites:
        connected = 'no' if name not in heard else f'yes, heard {max(0.0, time.time() - heard[name]):.0f} s ago'
        table.add_row([name, connected, 'yes' if jobs.get(name) in [job['job_id'] for job in running] else 'no'])
    print(table)
    print(f'{"A training runs." if running else "No training runs."}')


def _stop(args: argparse.Namespace) -> None:
    kit = args.kit.resolve()
    pid = _holder(kit, KEEPER)
    if pid is None:
        raise FedSegError(f'nothing runs {kit} here')
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 20
    while _holder(kit, KEEPER) is not None and time.monotonic() < until:
        time.sleep(0.1)
    if _holder(kit, KEEPER) is not None:
        raise FedSegError(f'the process {pid} does not end: kill -9 {pid}')
    print(f'{kit} is stopped.')


def _demo(args: argparse.Namespace) -> None:
    from fedseg_mm.cli.silo_demo import demo
    demo(Path(args.work_dir), args.rounds, args.port)


ACTIONS = dict(provision=_provision, serve=_serve, start=_start, train=_train, status=_status, stop=_stop, demo=_demo)
