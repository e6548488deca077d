"""The processes of a system on one machine: the same verbs that a deployment runs, each with a log; they end with who began them.

    with Processes(folder) as processes:
        processes.begin("trainer", ["online", "-c", "online.yaml", "--resume", "-q"])
        processes.check()
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from prerank.config import ConfigError
from prerank.serving import Client
from prerank.serving.client import ClientError

PATIENCE = 90.0  # seconds that a process may take to begin


class Processes:
    """See the module's first lines. folder: of the logs, NAME.log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self, name: str, verb: Sequence[str]) -> None:
        with self._log(name).open("w") as file:
            self._running[name] = subprocess.Popen([sys.executable, "-m", "prerank", *verb], stdout=file, stderr=subprocess.STDOUT,
                                                   preexec_fn=_die_with_parent)  # fmt: skip

    def check(self) -> None:
        """Raise ConfigError when one has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                last = (self._log(name).read_text().strip().splitlines() or ["it said nothing"])[-1]
                raise ConfigError(f"up: the {name} ended with status {process.returncode}: {last}")

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Wait for something that they are to do. Raises ConfigError when it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            self.check()
            if time.monotonic() > deadline:
                raise ConfigError(f"up: {what} took longer than {PATIENCE:.0f} s; see the logs in {self.folder}")
            time.sleep(0.1)

    def address(self, name: str) -> str:
        """Where a server says that it listens. Raises ConfigError when it does not."""
        found: list[str] = []

        def answers() -> bool:
            said = [word.rstrip(".,;") for word in self._log(name).read_text().split() if word.startswith("http://")]
            for url in said:
                try:
                    with Client(url) as client:
                        client.health()
                    found.append(url)
                    return True
                except ClientError:
                    pass
            return False

        self.until(answers, f"the {name}'s begin")
        return found[0]

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        """SIGTERM, and what does not listen is killed."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def _log(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.log"


def _die_with_parent() -> None:
    """Linux: the kernel ends the process when the one that started it is gone, however it went."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
