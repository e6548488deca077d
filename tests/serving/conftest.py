from collections.abc import Iterator

import pytest

from tests.serving.world import World, published, world
from tests.stream.servers import RedisServer


@pytest.fixture(scope="session")
def data() -> World:
    return world()


@pytest.fixture(scope="session")
def served(data, tmp_path_factory):
    """A folder with one calibrated generation, and the model it holds."""
    folder = tmp_path_factory.mktemp("generations")
    return folder, published(folder, data)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """One's own, which may be killed and started; what it acknowledged it has on disk."""
    server = RedisServer(durable=True)
    yield server
    server.close()
