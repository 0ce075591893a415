"""The server's end of a site: asks its trainer until the answer is there, whatever is lost on the way."""
import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedseg_mm.errors import FedSegError, shown
from fedseg_mm.silos.desk import PIECE, Task
from fedseg_mm.silos.spool import digest_of

if TYPE_CHECKING:
    from fedseg_mm.silos.job import RelayJob

#: Seconds between two tries to reach a site: at first, and at most.
PAUSES = 0.2, 2.0
#: Times that a trainer may end in the middle of one task.
MOST_ENDS = 3
#: An output has at most so many bytes for each of its task's inputs (what compression sends of a number may be three
#: times as large as the number), and so many beside.
MOST_TIMES, MOST_BESIDE = 4, 16 << 20
#: Letters of a site's own words that people are shown.
MOST_WORDS = 1000


class NoWay(ConnectionError):
    """A message did not reach its site; says why."""


class SiteAway(ConnectionError):
    """A site was not to be reached for longer than the run waits; says which, and why."""


@dataclass
class Output:
    """What came of a task.

    Args:
        content (bytes): The message.
        told (dict): What is told beside it.
    """
    content: bytes
    told: dict


class SiteLink:
    """Has a site's trainer do tasks, one at a time.

    A task is known by what it is: asked for again after whatever has
    happened, it is done once, or done again with the same result.

    Args:
        name (str): The site's name.
        job (RelayJob): What carries messages.
        timeout (float): Seconds without an answer after which the site is
            away.
    """

    def __init__(self, name: str, job: 'RelayJob', timeout: float) -> None:
        self.name, self.job, self.timeout = name, job, timeout
        self.setup: tuple[str, dict, Mapping[str, bytes]] | None = None
        #: Bytes that went down and came up, over all tasks.
        self.sent = self.received = 0
        #: When the site answered last, on the monotonic clock (s).
        self.heard = time.monotonic()
        #: Which of its trainer's processes answers, and which have before.
        self._boot = ''
        self._boots: set[str] = set()
        #: When, and for what, the task in progress is given up.
        self._until: float | None = None
        self._limit: float | None = None
        self._stop: threading.Event | None = None
        self._attempt = ''
        #: Pieces of the message that is being got, by its digest.
        self._pieces: dict[str, list[bytes]] = {}
        self._lock = threading.Lock()

    def is_here(self) -> bool:
        """Whether the site answers now."""
        try:
            self._ask(dict(op='hello'), timeout=10)
        except (NoWay, FedSegError):
            return False
        return True

    def prepare(self, args: dict, inputs: Mapping[str, bytes]) -> None:
        """Know a run without asking: the trainer is to build it before its first task."""
        digests = {name: digest_of(content) for name, content in inputs.items()}
        self.setup = Task('setup', args, digests).name, args, dict(inputs)

    def set_up(self, args: dict, inputs: Mapping[str, bytes], stop: threading.Event | None = None) -> Output:
        """Have the trainer build a run; one that begins anew later is given the same first."""
        self.prepare(args, inputs)
        return self.do('setup', args, inputs, stop=stop)

    def do(self, kind: str, args: dict, inputs: Mapping[str, bytes], limit: float | None = None,
           stop: threading.Event | None = None) -> Output:
        """Have one task done.

        Args:
            kind (str): 'setup', 'train' or 'evaluate'.
            args (dict): Numbers and names.
            inputs (Mapping[str, bytes]): Messages that it needs.
            limit (float, optional): Seconds that it may take in all.
                Defaults to None: as long as it takes.
            stop (threading.Event, optional): Set when the answer is of no use
                any more.

        Raises:
            SiteAway: The site was not to be reached, or took too long.
            FedSegError: The site cannot do it; says why.
        """
        with self._lock:
            digests = {name: digest_of(content) for name, content in inputs.items()}
            by_digest = {digests[name]: content for name, content in inputs.items()}
            most = MOST_TIMES * sum(map(len, inputs.values())) + MOST_BESIDE
            self._until, self._limit = None if limit is None else time.monotonic() + limit, limit
            self._stop, self._attempt = stop, secrets.token_hex(8)
            self.heard, ends, pause = time.monotonic(), 0, PAUSES[0]
            boot: str | None = None
            while True:
                self._check()
                try:
                    state = self._try(kind, args, digests, by_digest)
                    self.heard, pause = time.monotonic(), PAUSES[0]
                    if state['state'] == 'done':
                        content = self._fetch(state['output'], state['size'], most)
                        return Output(content, dict(state['told']))
                    if state['state'] == 'failed':
                        raise FedSegError(shown(state['error'], MOST_WORDS))
                    if state['state'] in ('again', 'busy'):
                        time.sleep(0.5)
                    elif state.get('boot') not in (None, boot):
                        ends += boot is not None
                        boot = state['boot']
                        if ends >= MOST_ENDS:
                            raise FedSegError(f'the trainer of {self.name} ended {ends} times in the middle of one '
                                              'task; its log says more, and too little memory is a usual cause')
                    elif state['state'] not in ('waiting', 'running'):
                        time.sleep(pause)  # a message is not there after all, or the trainer has just begun anew
                except NoWay as error:
                    if time.monotonic() - self.heard > self.timeout:
                        raise SiteAway(f'{self.name} was not to be reached for {self.timeout:g} s: {error}') from error
                    time.sleep(pause)
                    pause = min(pause * 1.5, PAUSES[1])

    def _check(self) -> None:
        """Give a task up that is of no use any more, or takes too long.

        Raises:
            SiteAway: It is.
        """
        if self._stop is not None and self._stop.is_set():
            raise SiteAway('the round was given up')
        if self._until is not None and time.monotonic() > self._until:
            raise SiteAway(f'{self.name} took longer than {self._limit:g} s')

    def _try(self, kind: str, args: dict, digests: dict[str, str], contents: Mapping[str, bytes]) -> dict:
        """Bring a task one step nearer to its end; its state.

        Raises:
            NoWay: The site was not to be reached.
            FedSegError: It refuses the task.
        """
        wanted = dict(op='work', kind=kind, args=args, inputs=digests, setup=self.setup[0] if self.setup else '',
                      attempt=self._attempt)
        state = self._ask(wanted)
        if state['state'] == 'missing':
            for digest in contents.keys() & set(state['missing']):
                self._bring(digest, contents[digest])
            state = self._ask(wanted)
        if state['state'] == 'not set up' and kind != 'setup' and self.setup is not None:
            _, setup_args, setup_inputs = self.setup
            by_name = {name: digest_of(content) for name, content in setup_inputs.items()}
            state = self._try('setup', setup_args, by_name, {
                by_name[name]: content for name, content in setup_inputs.items()})
            while state['state'] in ('waiting', 'running'):
                self._check()
                state = self._ask(dict(op='look', task=state['task']))
            if state['state'] == 'failed':
                raise FedSegError(shown(state['error'], MOST_WORDS))
            return dict(state='again' if state['state'] in ('again', 'busy') else 'waiting', boot=state.get('boot'))
        if state['state'] in ('waiting', 'running'):
            state = self._ask(dict(op='look', task=state['task']))
        return state

    def _ask(self, head: dict, body: bytes = b'', timeout: float = 30.0) -> dict:
        return self._ask_for(head, body, timeout)[0]

    def _ask_for(self, head: dict, body: bytes = b'', timeout: float = 30.0) -> tuple[dict, bytes]:
        reply, content = self.job.ask(self.name, head, body, timeout)
        self.heard = time.monotonic()
        self.sent += len(body) + len(json.dumps(head))
        self.received += len(content) + len(json.dumps(reply))
        if (boot := str(reply.get('boot', self._boot))[:40]) != self._boot:
            if boot in self._boots:
                raise FedSegError(f'two machines answer as {self.name}: a startup kit is for one machine; stop the '
                                  'other one, and start the training again with --resume')
            self._boots.add(boot)
            self._boot = boot
        if 'refused' in reply:
            raise FedSegError(f'{self.name}: {shown(reply["refused"], MOST_WORDS)}')
        return reply, content

    def _bring(self, digest: str, content: bytes) -> None:
        """Send what the site has not got of a message."""
        total = len(content)
        offset = self._ask(dict(op='arrived', digest=digest, total=total))['arrived']
        while offset < total:
            self._check()
            offset = self._ask(dict(op='put', digest=digest, offset=offset, total=total),
                               content[offset:offset + PIECE], timeout=60)['arrived']

    def _fetch(self, digest: str, size: int, most: int) -> bytes:
        """Get a message of the site's; pieces that are here stay here when the way is lost.

        Raises:
            FedSegError: It is not the message, or larger than it may be.
        """
        if size > most:
            raise FedSegError(f'{self.name} wants to send {size} bytes, but there is no use for more than {most}')
        pieces = self._pieces.get(digest, [])
        self._pieces = {digest: pieces}
        have = sum(map(len, pieces))
        while have < size:
            self._check()
            _, piece = self._ask_for(dict(op='get', digest=digest, offset=have, length=PIECE), timeout=60)
            if not piece:
                raise FedSegError(f'{self.name} has lost a message that it was to send')
            pieces.append(piece)
            have += len(piece)
        self._pieces = {}
        content = b''.join(pieces)
        if digest_of(content) != digest:
            raise FedSegError(f'a message of {self.name} was damaged on its way')
        return content
