import dataclasses

import pytest

from scrd.data.contract import Contract, learn_contract, unit
from scrd.data.formats.info import ImageInfo

CHEST = ImageInfo(
    width=1000,
    height=1200,
    channels=1,
    bits=12,
    format="DICOM",
    values="display",
    modality="DX",
    body_part="CHEST",
    view="PA",
    spacing=(0.2, 0.2),
)
PICTURE = ImageInfo(width=256, height=256, channels=1, bits=8, format="PNG")
CT = dataclasses.replace(
    CHEST, values="HU", modality="CT", view=None, plane="axial", spacing=(0.7, 0.7)
)


def test_what_the_training_images_say_is_kept():
    bedside = dataclasses.replace(CHEST, modality="CR", view="AP", height=800, spacing=(0.1, 0.15))
    found = learn_contract([CHEST, bedside])
    assert found == Contract(
        units=("display",),
        modalities=("CR",),
        body_parts=("CHEST",),
        views=("AP", "PA"),
        planes=(),
        channels=(1,),
        shorter_side=(800, 1000),
        spacing=(0.1, 0.2),
        files=("DICOM",),
        aspect=(1000 / 1200, 1000 / 800),
    )
    assert found.check(CHEST) == found.check(bedside) == ([], [])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"values": "HU"}, "HU; trained on display values"),
        ({"modality": "MG"}, "modality MG; trained on CR"),
        ({"body_part": "HAND"}, "body part HAND; trained on CHEST"),
        ({"view": "LL"}, "view LL; trained on PA"),
        ({"channels": 3}, "a colour image; trained on grey ones"),
        ({"localizer": True}, "a localizer"),
    ],
)
def test_another_kind_is_refused(changes, word):
    refusals, doubts = learn_contract([CHEST]).check(dataclasses.replace(CHEST, **changes))
    assert len(refusals) == 1
    assert word in refusals[0]
    assert doubts == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"modality": None}, "the file gives no modality; trained on CR"),
        ({"view": None}, "the file gives no view; trained on PA"),
        ({"width": 499}, "499x1200 pixels; the shorter side was 1000"),
        ({"height": 2001, "width": 2001}, "2001x2001 pixels"),
        ({"spacing": (0.2, 0.31)}, "pixels of 0.2 x 0.31 mm; trained on 0.2 mm"),
        ({"spacing": (0.13, 0.13)}, "pixels of 0.13 x 0.13 mm"),
    ],
)
def test_what_is_open_or_far_is_doubtful(changes, word):
    refusals, doubts = learn_contract([CHEST]).check(dataclasses.replace(CHEST, **changes))
    assert refusals == []
    assert len(doubts) == 1
    assert word in doubts[0]


def test_within_the_factors_there_is_no_doubt():
    near = dataclasses.replace(CHEST, width=501, spacing=(0.29, 0.14))
    assert learn_contract([CHEST]).check(near) == ([], [])


def test_planes_are_told_apart():
    contract = learn_contract([CT])
    assert contract.check(dataclasses.replace(CT, plane="coronal"))[0] == [
        "plane coronal; trained on axial"
    ]


def test_pictures_and_dicom_display_values_go_together():
    assert learn_contract([PICTURE]).check(dataclasses.replace(CHEST, width=256))[0] == []
    assert learn_contract([CHEST]).check(PICTURE)[0] == []
    deep = dataclasses.replace(PICTURE, bits=16)
    assert unit(deep) == "stored"
    assert "more than 8 bits" in learn_contract([PICTURE]).check(deep)[0][0]
    assert learn_contract([PICTURE]).check(CT)[0]


def test_a_colour_picture_for_grey_ones_is_doubtful_only():
    refusals, doubts = learn_contract([PICTURE]).check(dataclasses.replace(PICTURE, channels=3))
    assert refusals == []
    assert doubts == ["a colour image; trained on grey ones"]


def test_nifti_has_no_known_unit():
    volume = dataclasses.replace(CT, values="NIfTI", format="NIfTI", modality=None, body_part=None)
    refusals, doubts = learn_contract([CT]).check(volume)
    assert refusals == []
    assert any("unknown unit" in doubt for doubt in doubts)
    assert learn_contract([PICTURE]).check(volume)[0] == []


def test_without_training_images_everything_is_allowed():
    assert learn_contract([]) == Contract()
    assert Contract().check(CT) == ([], [])


def test_how_the_pixels_came_into_the_file_is_doubted():
    windowed, plain = (dataclasses.replace(CHEST, windowed=w) for w in (True, False))
    contract = learn_contract([windowed])
    assert contract.check(windowed) == contract.check(CHEST) == ([], [])
    assert contract.check(plain)[1] == [
        "no display window in the header; the training images had one"
    ]
    assert "had none" in learn_contract([plain]).check(windowed)[1][0]
    assert learn_contract([plain, windowed]).check(plain) == ([], [])
    picture = learn_contract([PICTURE])
    assert picture.check(dataclasses.replace(PICTURE, format="JPEG")) == ([], [])
    assert "one of the DICOM images; trained on pictures" in "".join(
        picture.check(dataclasses.replace(CHEST, width=256, height=256))[1]
    )
    assert "trained on DICOM" in "".join(contract.check(PICTURE)[1])


def test_a_strip_is_doubted_where_training_had_squares():
    contract = learn_contract([PICTURE])
    assert contract.check(dataclasses.replace(PICTURE, width=500)) == ([], [])
    (doubt,) = contract.check(dataclasses.replace(PICTURE, width=2000))[1]
    assert doubt == "2000x256 pixels; width by height was 1.0 in training"
