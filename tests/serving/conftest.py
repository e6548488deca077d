import pytest

from tests.serving.world import World, published, world


@pytest.fixture(scope="session")
def data() -> World:
    return world()


@pytest.fixture(scope="session")
def served(data, tmp_path_factory):
    """A folder with one calibrated generation, and the model it holds."""
    folder = tmp_path_factory.mktemp("generations")
    return folder, published(folder, data)
