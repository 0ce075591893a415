"""Messages between processes of one machine: JSON and bytes through a Unix socket, which hold no code."""
import json
import os
import socket
import socketserver
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Bytes of a message's JSON and of its body, at most.
MOST_HEAD, MOST_BODY = 1 << 20, 1 << 26
#: How a message begins: the lengths of its JSON and of its body.
_LENGTHS = struct.Struct('>IQ')

Handler = Callable[[dict, bytes], tuple[dict, bytes]]


class WireError(ConnectionError):
    """What came is no message; says why."""


def send(sock: socket.socket, head: dict, body: bytes = b'') -> None:
    """Send one message."""
    words = json.dumps(head).encode()
    sock.sendall(_LENGTHS.pack(len(words), len(body)) + words)
    if body:
        sock.sendall(body)


def receive(sock: socket.socket) -> tuple[dict, bytes]:
    """Receive one message.

    Raises:
        ConnectionError: The other end is gone, or sends something else.
    """
    head, body = _LENGTHS.unpack(_exactly(sock, _LENGTHS.size))
    if head > MOST_HEAD or body > MOST_BODY:
        raise WireError(f'a message of {head} and {body} bytes is longer than any may be')
    try:
        words = json.loads(_exactly(sock, head))
    except (ValueError, RecursionError) as error:
        raise WireError('a message does not begin with JSON') from error
    if not isinstance(words, dict):
        raise WireError('a message does not begin with a JSON object')
    return words, _exactly(sock, body)


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts, left = [], size
    while left:
        part = sock.recv(min(left, 1 << 20))
        if not part:
            raise WireError('the other end has closed the connection')
        parts.append(part)
        left -= len(part)
    return b''.join(parts)


def run_folder(kit: str | Path) -> Path:
    """The folder of sockets and spooled messages in a startup kit, which nobody else may enter.

    Raises:
        PermissionError: Others may, and it cannot be changed.
    """
    folder = Path(kit) / 'run'
    folder.mkdir(mode=0o700, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)
    return folder


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path of a socket in the few bytes that the system allows, however deep its folder is."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f'/proc/self/fd/{folder}/{path.name}'
    finally:
        os.close(folder)


def connect(path: Path, timeout: float | None = None) -> socket.socket:
    """A connection to the process that serves a socket.

    Raises:
        OSError: Nobody serves it.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        with _short(path) as short:
            sock.connect(short)
    except BaseException:
        sock.close()
        raise
    return sock


def ask(path: Path, head: dict, body: bytes = b'', timeout: float | None = None) -> tuple[dict, bytes]:
    """Send one message to whoever serves a socket, and receive the answer.

    Raises:
        OSError: Nobody serves it, or is gone before the answer.
    """
    with connect(path, timeout) as sock:
        send(sock, head, body)
        return receive(sock)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def serve(path: Path, handler: Handler) -> Iterator[None]:
    """Answer messages at a socket, each connection in a thread of its own, until the context is left.

    Args:
        path (Path): The socket; one that a dead process has left is removed.
        handler (Callable): Makes the answer of a message.
    """
    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while True:
                    send(self.request, *handler(*receive(self.request)))

    with suppress(FileNotFoundError):
        path.unlink()
    with _short(path) as short, _Server(short, Connection) as server:
        path.chmod(0o600)
        thread = threading.Thread(target=server.serve_forever, args=(0.1, ), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            with suppress(FileNotFoundError):
                path.unlink()
