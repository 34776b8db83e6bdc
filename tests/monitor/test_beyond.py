"""What training never showed is counted, with words for both."""

from scrd.data.contract import Contract
from scrd.data.covariates import Covariates
from scrd.monitor.beyond import Beyond, beyond_training

TRAINED = Contract(
    shorter_side=(240, 256),
    spacing=(0.5, 0.5),
    manufacturers=("ACME", "GLOBEX"),
    files=("DICOM",),
)


def image(width=256, height=256, spacing=(0.5, 0.5), maker="ACME", kind="DICOM"):
    return Covariates(width, height, spacing, maker, kind, 0.1, 0.2, -3.0)


def test_images_like_those_of_training_are_within():
    found = beyond_training([image(), image(600, 240, (0.50001, 0.5))], TRAINED)
    assert [one.name for one in found] == [
        *("shorter side", "pixel spacing", "manufacturer", "kind of file")
    ]
    assert all(one.images == 2 and one.beyond == 0 and one.found == "" for one in found)


def test_what_lies_beyond_is_counted_and_told():
    found = beyond_training(
        [image(), image(512, 300), image(128, 512), image(spacing=(0.5, 0.9), maker="HOOLI")],
        TRAINED,
    )
    assert found[0] == Beyond("shorter side", 4, 2, "128 to 300 pixels", "240 to 256 pixels")
    assert found[1] == Beyond("pixel spacing", 4, 1, "0.9 mm", "0.5 mm")
    assert found[2] == Beyond("manufacturer", 4, 1, "HOOLI", "ACME, GLOBEX")


def test_what_a_file_or_the_training_leaves_open_is_not_compared():
    picture = image(spacing=None, maker=None, kind="picture")
    found = beyond_training([picture, image()], TRAINED)
    assert [(one.name, one.images, one.beyond) for one in found] == [
        ("shorter side", 2, 0),
        ("pixel spacing", 1, 0),
        ("manufacturer", 1, 0),
        ("kind of file", 2, 1),
    ]
    assert beyond_training([picture], Contract()) == ()
    assert beyond_training([], TRAINED) == ()
