import os
from pathlib import Path

import pytest
import torch

# the suites share small machines, and one thread makes float sums repeat exactly
torch.set_num_threads(1)


@pytest.fixture
def shared_data() -> Path:
    """The folder with the project's real data sets."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SCRD_DATA", default))
    if not folder.is_dir():
        pytest.skip("the real data sets are not here: set SCRD_DATA")
    return folder
