import pytest
from archives import OrthancServer, missing


@pytest.fixture
def server(tmp_path):
    """A real Orthanc on loopback, with an empty store of its own."""
    if missing():
        pytest.skip(missing())
    server = OrthancServer(tmp_path / "orthanc")
    server.start()
    yield server
    server.kill()
