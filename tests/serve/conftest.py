from importlib.util import find_spec

import pytest
from serving import Server

# without the extra serve there is nothing to test
collect_ignore_glob = [] if find_spec("fastapi") else ["test_*.py"]


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """A folder with exported models: ``first`` and ``second`` of pictures, ``heads`` of MR."""
    pytest.importorskip("onnx", reason="no onnx: no export can be made")
    pytest.importorskip("onnxruntime", reason="no onnxruntime: nothing can run an export")
    from exports import HEADS, write_export

    folder = tmp_path_factory.mktemp("exports")
    write_export(folder / "first")
    write_export(folder / "second", gain=1.5)
    write_export(folder / "heads", HEADS, scope="series")
    return folder


@pytest.fixture(scope="module")
def shared(exports, tmp_path_factory):
    """A running server that the tests of a module share."""
    models = [f"disc={exports / 'first'}", f"head={exports / 'heads'}"]
    server = Server(tmp_path_factory.mktemp("shared") / "store", models)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def client(shared):
    with shared.client() as client:
        yield client


@pytest.fixture
def serve(tmp_path):
    """Starts servers and ends them after the test."""
    started = []

    def start(*models, name="store", options=(), wait=True, **given):
        server = Server(tmp_path / name, models, *options, **given)
        started.append(server)
        return server.start(wait=wait)

    yield start
    for server in started:
        server.kill()
