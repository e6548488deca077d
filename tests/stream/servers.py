"""Real servers for tests: a redis-server that can be stopped and started again, and librdkafka's mock cluster."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest


class RedisServer:
    """In a process of its own, on a socket; with `durable` every append is on disk before it is answered."""

    def __init__(self, durable: bool = False) -> None:
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            pytest.skip("no redis-server or valkey-server on this machine (Debian: apt install redis-server)")
        self._folder = tempfile.TemporaryDirectory(prefix="prerank-redis-")  # a socket's path must be short
        self.socket = Path(self._folder.name) / "s"
        append = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
        self._command = [binary, "--port", "0", "--unixsocket", str(self.socket), "--save", "", *append, "--dir", self._folder.name]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 20
        while not self.socket.exists():
            assert time.monotonic() < deadline, "redis-server did not come up"
            assert self._process.poll() is None, "redis-server ended"
            time.sleep(0.01)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=20)
        self.socket.unlink(missing_ok=True)

    def close(self) -> None:
        self.kill()
        self._folder.cleanup()

    def url(self, name: str, partitions: int) -> str:
        return f"unix://{self.socket}?log={name}&partitions={partitions}"


class Brokers:
    """librdkafka's mock cluster, in this process; it makes topics of 4 partitions when they are asked for."""

    partitions = 4

    def __init__(self) -> None:
        kafka = pytest.importorskip("confluent_kafka")
        self._host: Any = kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
        brokers = self._host.list_topics(timeout=10).brokers.values()
        self.address = ",".join(f"{b.host}:{b.port}" for b in brokers)

    def url(self, topic: str) -> str:
        return f"kafka://{self.address}/{topic}"
