import os
from pathlib import Path

import pytest

# the suites share small machines, where threads that spin hold up the others
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402

# one thread makes float sums repeat exactly
torch.set_num_threads(1)


@pytest.fixture
def shared_data() -> Path:
    """The folder with the project's real data sets."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SCRD_DATA", default))
    if not folder.is_dir():
        pytest.skip("the real data sets are not here: set SCRD_DATA")
    return folder
