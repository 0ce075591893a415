"""Ends a training at a point where nothing is lost."""
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: What asks a training to end: batch systems and `timeout`, and Ctrl-C.
STOPPING = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A training was asked to end, and did.

    Args:
        number (int): The signal.
        sentence (str): What is saved, and what to do. Defaults to nothing.
    """

    def __init__(self, number: int, sentence: str = '') -> None:
        super().__init__(sentence)
        #: As a shell reports a process that the signal ended.
        self.exit_code = 128 + number


@contextmanager
def terminated_as_stopped() -> Iterator[None]:
    """SIGTERM ends what is entered as Ctrl-C does, with a word and its own exit code."""
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            _die(number)
            return
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class StopSignals:
    """Notes the first SIGTERM or Ctrl-C while it is entered; the second ends the process at once.

    Args:
        joint (bool): Whether the processes of a run stop together. A launcher
            passes on a signal that the terminal has sent already, so that
            one within two seconds is not a second one, and :meth:`check`
            leaves it to the training loop to stop where all of them can.
            Defaults to False.
    """

    def __init__(self, joint: bool = False) -> None:
        self.joint = joint
        self._noted_at = 0.0
        #: The signal that came, if one did.
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> 'StopSignals':
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def check(self) -> None:
        """End the training here, if a signal asked for it.

        Raises:
            Stopped: One did.
        """
        if self.received is not None and not self.joint:
            raise Stopped(self.received)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker, which Ctrl-C reaches too: the client needs its images
            if number == signal.SIGTERM:
                _die(number)
            return
        if self.received is not None:
            if time.monotonic() - self._noted_at > 2:
                self._restore()
                os.kill(self._process, number)
            return
        self.received, self._noted_at = number, time.monotonic()
        if not self.joint:
            self._restore()
        name = signal.Signals(number).name
        os.write(2, f'\n{name}: stopping after the current client; a second signal stops at once\n'.encode())
