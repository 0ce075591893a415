"""The job that lets messages through: written, submitted, watched and ended by the training's process."""
import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nvflare.fuel.flare_api.flare_api import new_secure_session

from fedseg_mm.silos import wire
from fedseg_mm.silos.kits import ADMIN, CLASSES
from fedseg_mm.silos.site_link import NoWay

NAME = 'fedseg_mm'
#: Seconds that a job may take to start.
START = 90.0
#: Seconds after which a site that runs no job is tried once more, at first and at most: another job interrupts all.
AGAIN = 10.0, 600.0


def write_job(folder: Path) -> Path:
    """Write the job's folder, which holds no code."""
    config = folder / NAME / 'app' / 'config'
    config.mkdir(parents=True)
    files = {
        folder / NAME / 'meta.json': dict(name=NAME, resource_spec={}, min_clients=1, deploy_map=dict(app=['@ALL'])),
        config / 'config_fed_server.json': dict(
            format_version=2, workflows=[dict(id='relay', path=CLASSES['server'][0], args={})]),
        config / 'config_fed_client.json': dict(
            format_version=2, executors=[dict(tasks=['none'], executor=dict(path=CLASSES['site'][0], args={}))]),
    }
    for file, content in files.items():
        file.write_text(json.dumps(content), encoding='utf-8')
    return folder / NAME


class RelayJob:
    """Keeps one job running, and submits another when it has ended or a site has come back.

    Args:
        server (Path): The server's startup kit.
        admin (Path): The administrator's.
        say (Callable): Logs a sentence.
    """

    def __init__(self, server: Path, admin: Path, say: Callable[[str], None]) -> None:
        self.server, self.admin, self.say = server, admin, say
        self.socket: Path | None = None
        self.job_id = ''
        #: When a site was last tried to be taken in, and after how long it is next.
        self._tried: dict[str, tuple[float, float]] = {}
        self._renew, self._closed = threading.Event(), threading.Event()
        self._session = None
        self._last_reason = ''
        #: When sites that do not take part were last looked for, on the monotonic clock (s).
        self._looked = 0.0
        self._connections: dict[str, tuple[Path | None, socket.socket]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._thread = threading.Thread(target=self._watch, name='relay job', daemon=True)

    def start(self) -> None:
        """Begin to keep the job running, in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """End the job."""
        self._closed.set()
        if self.socket is not None:
            with suppress(OSError):
                wire.ask(self.socket, dict(op='end'), timeout=5)
        self._thread.join(timeout=30)
        for site in list(self._connections):
            self._disconnect(site)
        if self._session is not None:
            with suppress(Exception):
                self._session.close()

    def ask(self, site: str, head: dict, body: bytes = b'', timeout: float = 30.0) -> tuple[dict, bytes]:
        """Ask a site's trainer.

        Raises:
            NoWay: The message did not reach it.
        """
        if self.socket is None:
            raise NoWay('the server is not up')
        question = dict(op='ask', site=site, ask=head, timeout=timeout)
        with self._locks.setdefault(site, threading.Lock()):
            try:
                sock = self._connection(site, timeout + 30)
                wire.send(sock, question, body)
                reply, content = wire.receive(sock)
            except OSError as error:
                self._disconnect(site)
                raise NoWay('the server is not up') from error
        if 'no_way' in reply:
            raise NoWay(str(reply['no_way']))
        return reply, content

    def _connection(self, site: str, timeout: float) -> socket.socket:
        """The connection to the job that a site's questions go through, one after the other."""
        path, sock = self._connections.get(site, (None, None))
        if sock is None or path != self.socket:
            self._disconnect(site)
            path, sock = self.socket, wire.connect(self.socket)  # type: ignore[arg-type]
            self._connections[site] = path, sock
        sock.settimeout(timeout)
        return sock

    def _disconnect(self, site: str) -> None:
        _, sock = self._connections.pop(site, (None, None))
        if sock is not None:
            sock.close()

    # --- the thread ---------------------------------------------------------
    def _watch(self) -> None:
        pause = 1.0
        while not self._closed.wait(pause):
            pause = 1.0
            try:
                if self.socket is None or not self._is_up() or self._renew.is_set():
                    self._submit()
                elif time.monotonic() - self._looked > 5:
                    self._look_for_others()
            except Exception as error:  # NVFLARE's own, of many kinds: the server is not up yet, or not any more
                self._forget_session()
                self._complain(f'{type(error).__name__}: {error}')
                pause = 3.0

    def _complain(self, reason: str) -> None:
        if reason != self._last_reason:
            self._last_reason = reason
            self.say(f'NVFLARE is not ready, and is asked again until it is ({" ".join(reason.split())[:200]})')

    def _is_up(self) -> bool:
        try:
            wire.ask(self.socket, dict(op='hello'), timeout=20)  # type: ignore[arg-type]
        except OSError:
            return False
        return True

    def _admin(self):
        if self._session is None:
            self._session = new_secure_session(ADMIN, str(self.admin), timeout=10.0)
        return self._session

    def _forget_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(Exception):
                session.close()

    def _submit(self) -> None:
        """End what is left of the job before, and start another with all sites that are there now."""
        self.socket = None
        self._renew.clear()
        session = self._admin()
        for job in session.list_jobs():
            if job['job_name'] == NAME and not job['status'].startswith('FINISHED'):
                with suppress(Exception):  # after the server was restarted, a job is listed that runs no more
                    session.abort_job(job['job_id'])
        while not session.get_connected_client_list():
            if self._closed.wait(1.0):
                return
        with tempfile.TemporaryDirectory() as scratch:
            self.job_id = session.submit_job(str(write_job(Path(scratch))))
        path = wire.run_folder(self.server) / f'{self.job_id}.sock'
        until = time.monotonic() + START
        while time.monotonic() < until and not self._closed.wait(0.2):
            if path.exists():
                self.socket = path
                if self._is_up():
                    self._looked = time.monotonic()
                    return
                self.socket = None
        self._complain(f'the job that carries messages did not start, {session.get_job_status(self.job_id)}; '
                       f'{self.server / "run" / "nvflare.log"} says more')

    def _look_for_others(self) -> None:
        """Start another job where a site is connected that does not run this one."""
        self._looked = now = time.monotonic()
        here = {client['client_name']: client.get('job_id') for client in self._admin().get_client_job_status() or ()}
        apart = sorted(name for name, job in here.items() if job != self.job_id)
        for name, (when, pause) in list(self._tried.items()):
            if name not in apart and now - when > pause:
                del self._tried[name]
        due = [name for name in apart if name not in self._tried or now - self._tried[name][0] > self._tried[name][1]]
        if not due:
            return
        if broken := [name for name in due if name in self._tried]:
            self.say(f'{", ".join(broken)}: connected, but no job starts there, and the log of NVFLARE there says why; '
                     'it is tried again.')
        if new := [name for name in due if name not in self._tried]:
            self.say(f'{", ".join(new)} {"is" if len(new) == 1 else "are"} connected, and taken in.')
        for name in apart:
            self._tried[name] = now, min(2 * self._tried[name][1], AGAIN[1]) if name in self._tried else AGAIN[0]
        self._renew.set()
