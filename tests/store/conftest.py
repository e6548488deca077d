"""A real redis-server, in a process of its own, on a socket in a folder of the test's."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Skips, and says why, where there is no server to run."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        pytest.skip("no redis-server or valkey-server on this machine (Debian: apt install redis-server)")
    with tempfile.TemporaryDirectory(prefix="prerank-redis-") as folder:  # a socket's path must be short
        socket = Path(folder) / "s"
        command = [binary, "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
            try:
                deadline = time.monotonic() + 20
                while not socket.exists():
                    assert time.monotonic() < deadline, "redis-server did not come up"
                    assert process.poll() is None, "redis-server ended"
                    time.sleep(0.01)
                yield f"unix://{socket}"
            finally:
                process.terminate()
                process.wait(timeout=20)
