"""Models without a network, and tables as `scrd score` leaves them."""

import csv
import hashlib
import json

import numpy as np
import pytest

from scrd.data.contract import Contract
from scrd.outputs.covariates import COLUMNS
from scrd.scoring.calibration import Acquisition, Calibration, threshold_at
from scrd.storage.known import read_known
from scrd.storage.plain import to_plain

GROUPS, EACH = 40, 3


@pytest.fixture
def make_model(tmp_path):
    """Writes what a model says of 40 patients with three normals each, scores normal at 0."""

    def make(name="model", *, acquisition=True, seed=0, contract=None, rate=0.05, groups=GROUPS):
        rng = np.random.default_rng(seed)
        ids = np.repeat(np.arange(groups), EACH)
        # images of a patient are alike
        values = rng.normal(size=(4, groups))[:, ids] + 0.1 * rng.normal(size=(4, len(ids)))
        scores, *kept = (tuple(v) for v in values.tolist())
        calibration = Calibration(
            scores,
            tuple(ids.tolist()),
            rate,
            threshold_at(scores, ids.tolist(), rate),
            1.0,
            (0.0, 1.0),
            "areas",
            acquisition=Acquisition(*kept) if acquisition else Acquisition(),
        )
        folder = tmp_path / name
        folder.mkdir()
        plain = to_plain(calibration)
        if not acquisition:  # as models were saved before there was such a thing
            del plain["acquisition"]
        text = json.dumps(plain)
        (folder / "calibration.json").write_text(text)
        described = {
            "contract": to_plain(contract or Contract(shorter_side=(240, 256), files=("DICOM",))),
            "sha256": {"calibration.json": hashlib.sha256(text.encode()).hexdigest()},
            "name": name,
        }
        (folder / "config.json").write_text(json.dumps(described))
        return folder

    return make


@pytest.fixture
def write_scores(tmp_path):
    """Writes a folder of scores: a study a row of ``values`` (N, 4), ``slices`` images each."""

    def write(name, model, values, *, slices=1, studies=True, covariates=True, **cells):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        known = read_known(model)
        rng = np.random.default_rng(len(name))
        with (
            open(folder / "scores.csv", "w", newline="") as scores,
            open(folder / "covariates.csv", "w", newline="") as beside,
        ):
            first, second = csv.writer(scores), csv.DictWriter(beside, COLUMNS)
            first.writerow(("path", "score", "p_value", "flag"))
            second.writeheader()
            for i, study in enumerate(values):
                for k in range(slices):
                    path = f"{name}/{i:04}-{k}.dcm"
                    score, *numbers = study + 0.1 * rng.normal(size=4) * (slices > 1)
                    flag = int(score >= known.calibration.threshold)
                    first.writerow((path, score, 0.5, flag))
                    row = {
                        "path": path,
                        "model": known.fingerprint[:16],
                        "study": f"{name}-{i}" if studies else "",
                        "width": 256,
                        "height": 240,
                        "format": "DICOM",
                        **dict(zip(COLUMNS[-3:], numbers, strict=True)),
                        **cells,
                    }
                    second.writerow(row)
        if not covariates:
            (folder / "covariates.csv").unlink()
        return folder

    return write
