"""A scorer that needs no training, and a folder of images for it."""

import numpy as np
from PIL import Image

from scrd.data.contract import Contract
from scrd.data.intensity import Intensity
from scrd.data.preprocess import Preprocessing
from scrd.scoring.calibration import Calibration
from scrd.scoring.scorer import Inferred, Scorer

HOSTILE = "<img src=x onerror=alert(1)>.png"


class Bright(Scorer):
    """Flags images whose mean is high."""

    def __init__(self):
        self.preprocessing = Preprocessing(Intensity(0, 255, 0, "grey", "data"), 32)
        normals = tuple(np.linspace(0.2, 0.5, 19).tolist())
        self.calibration = Calibration(normals, tuple(range(19)), 0.1, 0.5, 0.6, (0.0, 1.0), "mean")
        self.contract = Contract()
        self.fingerprint = "ab12" * 16

    def infer(self, images, content, *, maps=True):
        means = images.mean(axis=(1, 2, 3)).astype(np.float64)
        return Inferred(images[:, 0], {"mean": means}, np.ones((len(images), 1), np.float32))


def write_images(root, count=60):
    """So many that get brighter, from image 55 on flagged; one of a hostile name, one broken."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = 20 + 2 * i + rng.normal(0, 4, (48, 64))
        name = HOSTILE if i == 30 else f"{i:03d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name)
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root
