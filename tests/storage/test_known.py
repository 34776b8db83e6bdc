"""What a model says of normals, read without its network."""

import hashlib
import json

import pytest

from scrd.data.contract import Contract
from scrd.errors import ScrdError
from scrd.scoring.calibration import Acquisition, Calibration
from scrd.storage.known import Known, read_known
from scrd.storage.plain import to_plain

CALIBRATION = Calibration(
    *((1.0, 2.0), (0, 1), 0.4, 1.5, 1.0, (0.0, 1.0), "areas"),
    acquisition=Acquisition((0.1, 0.2), (0.3, 0.4), (-3.0, -4.0)),
)
CONTRACT = Contract(files=("picture",), manufacturers=("ACME",))


def write(folder, index="config.json", calibration=None, **changes):
    text = json.dumps(to_plain(CALIBRATION) if calibration is None else calibration)
    (folder / "calibration.json").write_text(text)
    hashes = {"calibration.json": hashlib.sha256(text.encode()).hexdigest()}
    described = {"contract": to_plain(CONTRACT), "sha256": hashes, **changes}
    (folder / index).write_text(json.dumps(described))
    return hashlib.sha256((folder / index).read_bytes()).hexdigest()


@pytest.mark.parametrize("index", ["config.json", "export.json"])
def test_a_model_and_an_export_of_it_are_read_alike(tmp_path, index):
    fingerprint = write(tmp_path, index)
    assert read_known(tmp_path) == Known(CALIBRATION, CONTRACT, fingerprint)


def test_a_model_of_an_earlier_version_keeps_no_acquisition(tmp_path):
    plain, contract = to_plain(CALIBRATION), to_plain(CONTRACT)
    del plain["acquisition"], contract["manufacturers"]
    write(tmp_path, calibration=plain, contract=contract)
    found = read_known(tmp_path)
    assert found.calibration.acquisition == Acquisition()
    assert found.contract.manufacturers == ()


def test_what_is_no_model_is_refused_by_name(tmp_path):
    with pytest.raises(ScrdError, match="no such model folder"):
        read_known(tmp_path / "absent")
    write(tmp_path)
    (tmp_path / "calibration.json").write_text("{}")
    with pytest.raises(ScrdError, match=r"calibration.json: does not match the hash"):
        read_known(tmp_path)
    (tmp_path / "calibration.json").unlink()
    with pytest.raises(ScrdError, match=r"calibration.json: missing"):
        read_known(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ScrdError, match=r"config.json: not readable as JSON"):
        read_known(tmp_path)
    write(tmp_path, contract={"colour": 1})
    with pytest.raises(ScrdError, match=r"config.json: does not describe a model .*colour"):
        read_known(tmp_path)
