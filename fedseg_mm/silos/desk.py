"""Where a site's trainer takes what the server asks for, and gives what came of it."""
import hashlib
import json
import os
import queue
import threading
from dataclasses import dataclass, field
from typing import Any

from fedseg_mm.errors import FedSegError
from fedseg_mm.silos.spool import Spool

#: Bytes of a message that travel at once.
PIECE = 8 << 20
#: How a trainer ends that has to begin anew, as another run is to be set up.
ANEW = 75
#: Seconds that a question for a task's state waits for the task to end.
WAIT = 2.0


@dataclass
class Task:
    """One thing that the server wants done.

    Args:
        kind (str): 'setup', 'train' or 'evaluate'.
        args (dict): Numbers and names.
        inputs (dict[str, str]): Digests of the messages that it needs.
        attempt (str): Tells who asks again because an answer was lost from
            who tries again what has failed.
    """
    kind: str
    args: dict
    inputs: dict[str, str]
    attempt: str = ''
    state: str = 'waiting'
    error: str = ''
    output: str = ''
    told: dict = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        """What it is called: the same for the same task, so that asking twice does not do it twice."""
        words = json.dumps([self.kind, self.args, self.inputs], sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()


class Desk:
    """Answers the server's questions in threads of their own, while one task at a time is being done.

    Every question may be asked again: its answer may have been lost.

    Args:
        spool (Spool): Messages that have come, and that are to go.
        name (str): The site's name.
    """

    def __init__(self, spool: Spool, name: str) -> None:
        self.spool, self.name = spool, name
        #: Tells this process from the one before.
        self.boot = os.urandom(8).hex()
        self.tasks: queue.Queue[Task] = queue.Queue()
        #: The last one, done or not.
        self.task: Task | None = None
        #: Set-up that the trainer has, or has failed at, by its task's name.
        self.setup = ''
        self._is_set_up = False
        self._lock = threading.Lock()

    def answer(self, head: dict, body: bytes) -> tuple[dict, bytes]:
        """One question; what is wrong with it is the answer's ``refused``."""
        questions: dict[Any, Any] = dict(hello=self._hello, arrived=self._arrived, put=self._put, work=self._work,
                                         look=self._look, get=self._get)
        try:
            if (ask := questions.get(head.get('op'))) is None:
                raise FedSegError(f'a trainer is not asked for {head.get("op")!r:.40}')
            return ask(head, body)
        except FedSegError as error:
            return dict(refused=str(error)), b''
        except (KeyError, TypeError, ValueError) as error:
            return dict(refused=f'the question is damaged: {type(error).__name__} {error}'), b''
        except OSError as error:
            return dict(refused=f'{os.strerror(error.errno or 0)} ({error.filename}) at {self.name}'), b''

    def _hello(self, head: dict, body: bytes) -> tuple[dict, bytes]:
        return dict(site=self.name, boot=self.boot), b''

    def _arrived(self, head: dict, body: bytes) -> tuple[dict, bytes]:
        return dict(arrived=self.spool.arrived(head['digest'], head['total'])), b''

    def _put(self, head: dict, body: bytes) -> tuple[dict, bytes]:
        with self._lock:
            return dict(arrived=self.spool.put(head['digest'], head['offset'], body, head['total'])), b''

    def _work(self, head: dict, body: bytes) -> tuple[dict, bytes]:
        task = Task(head['kind'], dict(head['args']), dict(head['inputs']), str(head.get('attempt', '')))
        with self._lock:
            if (last := self.task) is not None and last.name == task.name and (
                    last.state != 'failed' or last.attempt == task.attempt):
                return self._state(last), b''
            if task.kind == 'setup' and self.setup and (self.setup != task.name or not self._is_set_up):
                # what OpenMMLab keeps in a process is of one run; whatever is being done is of no use any more
                self.begin_anew()
                return dict(state='again'), b''
            if self.task is not None and not self.task.ended.is_set():
                return dict(state='busy'), b''
            if task.kind == 'setup' and self.setup == task.name:
                self.task = None  # a task of that set-up is asked for again
            elif task.kind != 'setup' and not (self._is_set_up and self.setup == head['setup']):
                return dict(state='not set up'), b''
            if missing := [digest for digest in task.inputs.values() if not self.spool.has(digest)]:
                return dict(state='missing', missing=missing), b''
            self.task = task
            self.tasks.put(task)
            return self._state(task), b''

    def begin_anew(self) -> None:
        """End this process, once the answer is on its way: it is started again."""
        threading.Timer(0.3, os._exit, (ANEW, )).start()

    def _look(self, head: dict, body: bytes) -> tuple[dict, bytes]:
        task = self.task
        if task is None or task.name != head['task']:
            return dict(state='unknown', boot=self.boot), b''
        task.ended.wait(WAIT)
        return self._state(task), b''

    def _state(self, task: Task) -> dict:
        size = self.spool.size(task.output) if task.output else 0
        return dict(task=task.name, state=task.state, error=task.error, output=task.output, size=size, told=task.told,
                    boot=self.boot)

    def _get(self, head: dict, body: bytes) -> tuple[dict, bytes]:
        return {}, self.spool.read(head['digest'], head['offset'], min(head['length'], PIECE))

    # --- the trainer's side -------------------------------------------------
    def finish(self, task: Task, output: bytes = b'', told: dict | None = None, error: str = '') -> None:
        """Say what came of a task."""
        with self._lock:
            task.output = self.spool.add(output) if output else ''
            task.told, task.error, task.state = told or {}, error, 'failed' if error else 'done'
            if task.kind == 'setup':
                self.setup, self._is_set_up = task.name, not error
            task.ended.set()
            self.spool.keep({task.output, *task.inputs.values()})
