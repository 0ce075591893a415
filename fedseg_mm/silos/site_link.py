"""The server's end of a site: asks its trainer until the answer is there, whatever is lost on the way."""
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedseg_mm.errors import FedSegError
from fedseg_mm.silos.desk import PIECE, Task
from fedseg_mm.silos.spool import digest_of

if TYPE_CHECKING:
    from fedseg_mm.silos.job import RelayJob

#: Seconds between two tries to reach a site: at first, and at most.
PAUSES = 0.2, 2.0
#: Times that a trainer may end in the middle of one task.
MOST_ENDS = 3


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
        say (Callable): Logs a sentence.
    """

    def __init__(self, name: str, job: 'RelayJob', timeout: float, say: Callable[[str], None]) -> None:
        self.name, self.job, self.timeout, self.say = name, job, timeout, say
        self.setup: tuple[str, dict, Mapping[str, bytes]] | None = None
        #: Bytes that went down and came up, over all tasks.
        self.sent = self.received = 0
        #: When the site answered last, on the monotonic clock (s).
        self.heard = time.monotonic()
        #: Which of its trainer's processes answers, and which have before.
        self._boot = ''
        self._boots: set[str] = set()
        self._lock = threading.Lock()

    def is_here(self) -> bool:
        """Whether the site answers now."""
        try:
            self._ask(dict(op='hello'), timeout=10)
        except (NoWay, FedSegError):
            return False
        return True

    def set_up(self, args: dict, inputs: Mapping[str, bytes]) -> Output:
        """Have the trainer build a run; one that begins anew later is given the same first."""
        digests = {name: digest_of(content) for name, content in inputs.items()}
        self.setup = Task('setup', args, digests).name, args, dict(inputs)
        return self.do('setup', args, inputs)

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
            until = None if limit is None else time.monotonic() + limit
            self.heard, ends, pause = time.monotonic(), 0, PAUSES[0]
            boot: str | None = None
            while True:
                if stop is not None and stop.is_set():
                    raise SiteAway('the round was given up')
                if until is not None and time.monotonic() > until:
                    raise SiteAway(f'{self.name} took longer than {limit:g} s')
                try:
                    state = self._try(kind, args, digests, by_digest)
                    self.heard, pause = time.monotonic(), PAUSES[0]
                    if state['state'] == 'done':
                        content = self._fetch(state['output'], state['size'])
                        return Output(content, state['told'])
                    if state['state'] == 'failed':
                        raise FedSegError(state['error'])
                    if state['state'] in ('again', 'busy'):
                        time.sleep(0.5)
                    elif state.get('boot') not in (None, boot):
                        ends += boot is not None
                        boot = state['boot']
                        if ends >= MOST_ENDS:
                            raise FedSegError(f'the trainer of {self.name} ended {ends} times in the middle of one '
                                              'task; its log says more, and too little memory is a usual cause')
                except NoWay as error:
                    if time.monotonic() - self.heard > self.timeout:
                        raise SiteAway(f'{self.name} was not to be reached for {self.timeout:g} s: {error}') from error
                    time.sleep(pause)
                    pause = min(pause * 1.5, PAUSES[1])

    def _try(self, kind: str, args: dict, digests: dict[str, str], contents: Mapping[str, bytes]) -> dict:
        """Bring a task one step nearer to its end; its state.

        Raises:
            NoWay: The site was not to be reached.
            FedSegError: It refuses the task.
        """
        wanted = dict(op='work', kind=kind, args=args, inputs=digests, setup=self.setup[0] if self.setup else '')
        state = self._ask(wanted)
        if state['state'] == 'missing':
            for digest in state['missing']:
                self._bring(digest, contents[digest])
            state = self._ask(wanted)
        if state['state'] == 'not set up' and self.setup is not None:
            _, setup_args, setup_inputs = self.setup
            by_name = {name: digest_of(content) for name, content in setup_inputs.items()}
            state = self._try('setup', setup_args, by_name, {
                by_name[name]: content for name, content in setup_inputs.items()})
            while state['state'] in ('waiting', 'running'):
                state = self._ask(dict(op='look', task=state['task']))
            if state['state'] == 'failed':
                raise FedSegError(state['error'])
            return dict(state='waiting', boot=state.get('boot'))
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
        if (boot := reply.get('boot', self._boot)) != self._boot:
            if boot in self._boots:
                raise FedSegError(f'two machines answer as {self.name}: a startup kit is for one machine; stop the '
                                  'other one, and start the training again with --resume')
            self._boots.add(boot)
            self._boot = boot
        if 'refused' in reply:
            raise FedSegError(f'{self.name}: {reply["refused"]}')
        return reply, content

    def _bring(self, digest: str, content: bytes) -> None:
        """Send what the site has not got of a message."""
        total = len(content)
        offset = self._ask(dict(op='arrived', digest=digest, total=total))['arrived']
        while offset < total:
            offset = self._ask(dict(op='put', digest=digest, offset=offset, total=total),
                               content[offset:offset + PIECE], timeout=60)['arrived']

    def _fetch(self, digest: str, size: int) -> bytes:
        """Get a message of the site's; pieces that are here stay here when the way is lost."""
        pieces, have = getattr(self, '_pieces', {}).get(digest, []), 0
        self._pieces = {digest: pieces}
        have = sum(map(len, pieces))
        while have < size:
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
