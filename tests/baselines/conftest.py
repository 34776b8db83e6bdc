import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from scrd.baselines.efficientad import IMAGES_FOLDER, TEACHER_FILE


@pytest.fixture(scope="session")
def narrow_efficientad():
    pytest.importorskip(
        "anomalib", reason="anomalib, an optional extra, is not installed", exc_type=ImportError
    )
    from anomalib.models.image.efficient_ad import torch_model

    class Narrow(torch_model.SmallPatchDescriptionNetwork):
        """The same geometry with few channels: the real one takes minutes on a CPU."""

        def __init__(self, out_channels, padding=False):
            super().__init__(out_channels, padding)
            self.conv1 = nn.Conv2d(3, 8, 4)
            self.conv2 = nn.Conv2d(8, 8, 4)
            self.conv3 = nn.Conv2d(8, 8, 3)
            self.conv4 = nn.Conv2d(8, out_channels, 4)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_model, "SmallPatchDescriptionNetwork", Narrow)
        yield torch_model


@pytest.fixture(scope="session")
def efficientad_files(narrow_efficientad, tmp_path_factory):
    """A narrow EfficientAD teacher's weights and three pictures, as in anomalib's archives."""
    root = tmp_path_factory.mktemp("files")
    (root / TEACHER_FILE).parent.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(
            narrow_efficientad.SmallPatchDescriptionNetwork(384).state_dict(), root / TEACHER_FILE
        )
    rng = np.random.default_rng(0)
    for i in range(3):
        path = root / IMAGES_FOLDER / "train" / f"n{i}" / "picture.JPEG"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return root
