"""Servers, one each for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stream.servers import RedisServer


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """One's own, which may be stopped and started; what it acknowledged it has on disk."""
    server = RedisServer(durable=True)
    yield server
    server.close()
