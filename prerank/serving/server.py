"""The process that serves: uvicorn with uvloop and httptools, one or several workers on one socket.

The socket is bound before anything is loaded, so that a port in use is one line at once. SIGTERM and Ctrl-C let what is
in flight finish, then the process ends with status 0.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import tempfile
from contextlib import closing
from functools import partial
from typing import Any

from litestar import Litestar

from prerank.serving.app import create
from prerank.serving.arms import Arms
from prerank.serving.measures import SHARED
from prerank.serving.scorer import Builder
from prerank.serving.service import Settings, opened
from prerank.serving.tape import warm

SWITCH = 0.0005  # seconds after which the thread that loads a generation lets requests go on; Python's 5 ms are several requests
GRACE = 30  # seconds that requests in flight are given to finish


class ServerError(ValueError):
    """The server cannot start; the message says why."""


def serve(settings: Settings, build: Builder, *, host: str = "127.0.0.1", port: int = 8080, workers: int = 1) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ServerError (port in use) and GenerationError (nothing to serve).

    build     model builder; with several workers it must be a module's function, they import it
    port      0: a free one (logged)
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    with closing(bind(host, port)) as listener:
        url = f"http://{host}:{listener.getsockname()[1]}"
        if workers == 1:
            app = worker(settings, build)
            _print(f"serving {url} (POST /score, GET /docs)", app.state.service.arms)
            for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn finishes what is in flight, then raises the signal again
                signal.signal(number, lambda *_: None)
            uvicorn.Server(_config(app)).run([listener])
            return
        arms = opened(settings, build)  # a generation that cannot be served is one line, not one a worker
        _print(f"serving {url} with {workers} workers (POST /score, GET /docs)", arms)
        del arms
        with tempfile.TemporaryDirectory(prefix="prerank-metrics-") as shared:
            os.environ[SHARED] = shared
            Multiprocess(_config(partial(worker, settings, build), workers), [listener]).run()


def _print(line: str, arms: Arms) -> None:
    """Where it serves, and a line for each model of which a candidate costs more than MaxSim's."""
    costs = dict.fromkeys(told for m in (*arms.members, *arms.shadows) if (told := m.live.scorer.told()) is not None)
    print("\n".join([line, *costs]), flush=True)


def _config(app: Any, workers: int = 1) -> Any:
    """uvicorn's; an app, or for several workers what makes one."""
    import uvicorn

    return uvicorn.Config(
        app,
        factory=workers > 1,
        workers=workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_worker_healthcheck=120,
    )


def worker(settings: Settings, build: Builder) -> Litestar:
    """What each worker process runs: one torch thread, because requests, not products, are what runs in parallel.

    Before a generation is loaded, all that is there stays: modules, 350,000 objects of them, that the garbage collector would look at again
    and again while generations flip, for 100 to 400 ms between two requests.
    """
    import torch

    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH)
    warm()
    gc.collect()
    gc.freeze()
    return create(settings, build)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ServerError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ServerError(f"port {port} on {host}: {reason.lower()}; choose another with --port") from None
    listener.set_inheritable(True)
    return listener
