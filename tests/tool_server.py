"""Runs tools in forks of one process that has imported what they import: as fresh as a new one, without its seconds.

    python -m tests.tool_server

Reads one request per line, JSON with ``script``, ``arguments``, ``cwd``, ``environment``, ``stdout``, ``stderr``
(files to write) and ``timeout`` in seconds; answers each with a line: the exit code, or ``timeout``.
"""
import gc
import json
import os
import random
import runpy
import signal
import sys
import time

import fedseg_mm.cli.train  # noqa: F401  first: it makes mmseg importable

# isort: split
import matplotlib.backends.backend_agg  # noqa: F401
import matplotlib.figure  # noqa: F401
import mmseg.apis  # noqa: F401
import mmseg.datasets  # noqa: F401
import mmseg.engine  # noqa: F401
import mmseg.evaluation  # noqa: F401
import mmseg.models  # noqa: F401
import mmseg.visualization  # noqa: F401
import numpy as np
import torch._dynamo  # noqa: F401  the first optimizer imports it


def become(request: dict) -> None:
    """Turn this process into the tool's."""
    os.setsid()
    for name, number in (('stdout', 1), ('stderr', 2)):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request['cwd'])
    os.environ.clear()
    os.environ.update(request['environment'])
    random.seed()
    np.random.seed()
    sys.argv = [request['script'], *request['arguments']]
    sys.path[0] = os.path.dirname(request['script'])
    sys.path[1:1] = [path for path in request['environment'].get('PYTHONPATH', '').split(os.pathsep)
                     if path and path not in sys.path]


def serve() -> None:
    for line in iter(sys.stdin.readline, ''):
        request = json.loads(line)
        child = os.fork()
        if not child:
            become(request)
            runpy.run_path(request['script'], run_name='__main__')
            return
        end = time.monotonic() + request['timeout']
        while not (done := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            time.sleep(0.01)
        print(os.waitstatus_to_exitcode(done[1]) if done[0] else 'timeout', flush=True)


if __name__ == '__main__':
    gc.freeze()  # what is imported is not looked through in every fork
    serve()
