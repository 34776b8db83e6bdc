from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from scrd.data.formats.info import ImageInfo
from scrd.data.series import assemble

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


def header(number, position, *, orientation=AXIAL, name=None, **changes):
    info = ImageInfo(64, 48, 1, 16, "DICOM", "HU", modality="CT", spacing=(0.5, 0.25))
    values = {
        "path": Path(name or f"{number}.dcm"),
        "sop_uid": f"1.2.{number}",
        "series_uid": "1.3",
        "study_uid": "1.4",
        "frame_of_reference": "1.5",
        "patient": "key",
        "person": changes.get("patient") or "key",
        "named": ("name", "birth"),
        "keys": ((None,) * 4,),
        "frames": 1,
        "instance_number": number,
        "orientations": (orientation,),
        "positions": (position,),
        "tilt": None,
        "info": info,
    }
    return SimpleNamespace(**(values | changes))


def stack(heights, **changes):
    return [header(i, (10.0, 20.0, z), **changes) for i, z in enumerate(heights)]


def order(series):
    return [path.stem for path, _ in series.places]


def test_slices_are_ordered_along_the_normal_whatever_their_numbers():
    [series] = assemble(stack([6, 2, 4, 0]))
    assert order(series) == ["3", "1", "2", "0"]
    assert series.problems == ()
    assert (series.uid, series.study, series.patient) == ("1.3", "1.4", "patient 1")


def test_the_affine_takes_voxels_to_the_patient():
    [series] = assemble(stack([0, 2, 4]))
    # column 3, row 5, slice 2: spacing is (rows, columns) = (0.5, 0.25) mm
    np.testing.assert_allclose(series.affine @ [3, 5, 2, 1], [10 + 0.75, 20 + 2.5, 4, 1])


def test_oblique_and_tilted_slices():
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    shear = 0.3 * np.array(OBLIQUE[3:])  # a gantry tilt moves each slice within its plane
    headers = [
        header(9 - i, tuple(3 * i * (normal + shear)), orientation=OBLIQUE) for i in range(4)
    ]
    [series] = assemble(headers)
    assert order(series) == ["9", "8", "7", "6"]
    np.testing.assert_allclose(series.affine @ [0, 0, 2, 1], [*(6 * (normal + shear)), 1])
    np.testing.assert_allclose(series.affine[:3, 0], 0.25 * np.array(OBLIQUE[:3]))
    np.testing.assert_allclose(series.affine[:3, 1], 0.5 * np.array(OBLIQUE[3:]))


@pytest.mark.parametrize(
    ("shear", "tilts", "doubted"),
    [
        (15, (15.0,), False),
        (15, (-15.3,), False),  # the sign is the maker's
        (15, (None,), False),
        (0, (0.0,), False),
        (0, (None,), False),
        (0, (0.4, 0.0), False),
        (15, (0.0,), True),
        (0, (15.0,), True),
        (15, (15.0, 30.0), True),
    ],
)
def test_a_tilt_that_the_positions_do_not_show_is_doubted(shear, tilts, doubted):
    turn = np.deg2rad(shear)
    tilted = (1.0, 0.0, 0.0, 0.0, np.cos(turn), np.sin(turn))
    headers = [
        header(i, (0.0, 0.0, 5.0 * i), orientation=tilted, tilt=tilts[i % len(tilts)])
        for i in range(4)
    ]
    [series] = assemble(headers)
    # the table moves along z, whatever the header says of the gantry
    np.testing.assert_allclose(series.affine[:3, 2], [0, 0, 5])
    assert [p.startswith("two geometries") for p in series.problems] == [True] * doubted


def test_slices_that_do_not_lie_one_behind_the_other_have_no_affine():
    headers = [header(i, (3.0 * (i == 2), 0.0, 5.0 * i)) for i in range(5)]
    [series] = assemble(headers)
    assert series.problems == ("its slices are shifted against each other, by up to 3.0 mm",)
    assert series.affine is None


def test_what_keeps_a_series_from_being_a_volume_is_named():
    def spaced(number, spacing):
        info = ImageInfo(64, 48, 1, 16, "DICOM", spacing=spacing)
        return header(number, (0.0, 0.0, 2.0 * number), info=info)

    [series] = assemble([spaced(0, (1, 1)), spaced(1, (1, 1)), spaced(2, (2, 2))])
    assert (series.affine, series.problems) == (None, ("images of 2 pixel spacings",))
    [series] = assemble([spaced(0, None), spaced(1, None)])
    assert "no pixel spacing" in series.problems[0]
    [series] = assemble([header(i, (0.0, 0.0, i), orientation=None) for i in range(2)])
    assert "half of where they lie" in series.problems[0]


@pytest.mark.parametrize(
    ("heights", "problem"),
    [
        ([0, 2, 4, 8, 10], "1 slices are missing"),
        ([0, 2, 4, 12, 14], "3 slices are missing"),
        ([0, 2, 4, 5, 7], "uneven spacing, from 1 to 2 mm"),
        ([0, 2, 2, 4], "1 images at a position that is taken"),
        ([0, 2, 4, 0, 2, 4], "2 images at each position"),
    ],
)
def test_odd_spacing_is_named_and_has_no_affine(heights, problem):
    [series] = assemble(stack(heights))
    assert len(series.problems) == 1
    assert problem in series.problems[0]
    assert series.affine is None
    shown = [heights[int(name)] for name in order(series)]
    assert shown == sorted(heights)


def test_echoes_keep_their_order_at_a_position():
    [series] = assemble(stack([0, 2, 0, 2]))
    assert order(series) == ["0", "2", "1", "3"]


def test_mixed_orientations_go_by_number():
    headers = stack([4, 2]) + [header(2, (0, 0, 0), orientation=OBLIQUE)]
    [series] = assemble(headers)
    assert series.problems == ("images of 2 orientations",)
    assert order(series) == ["0", "1", "2"]


def test_different_images_under_one_sop_instance_uid_are_all_kept():
    headers = [*stack([0, 2, 4]), header(9, (10.0, 20.0, 6), sop_uid="1.2.1")]
    [series] = assemble(headers)
    assert order(series) == ["0", "1", "2", "9"]
    assert series.problems == ("2 different images carry one SOP Instance UID",)
    assert series.affine is not None


@pytest.mark.parametrize("uid", ["1.3", "1.33"])
def test_patients_under_one_study_uid_are_kept_apart(uid):
    headers = [
        header(1, (0, 0, 0), patient="anna"),
        header(2, (0, 0, 2), patient="berta", series_uid=uid),
        header(3, (0, 0, 4), patient=None, person="", series_uid=uid),
        header(4, (0, 0, 6), patient=None, person="cilli", series_uid=uid),
    ]
    found = assemble(headers)
    assert [order(series) for series in found] == [["1"], ["2"], ["3"], ["4"]]
    assert [s.study for s in found] == [
        "1.4 (patient 1)",
        "1.4 (patient 2)",
        "1.4 (no patient ID, 1)",
        "1.4 (no patient ID, 2)",
    ]
    assert [s.instance_uid for s in found] == ["1.3", uid, uid, uid]
    assert len({s.uid for s in found}) == 4
    for series in found:
        assert series.problems == ("4 patients share its Study Instance UID; they are kept apart",)


def test_a_series_uid_of_two_studies_names_two_series():
    first, second = assemble([header(1, (0, 0, 0)), header(2, (0, 0, 2), study_uid="1.44")])
    assert (first.study, second.study) == ("1.4", "1.44")
    assert first.uid != second.uid
    assert first.problems == ("its Series Instance UID is that of a series of another study too",)


def test_positions_in_two_frames_of_reference_are_not_compared():
    headers = [*stack([4, 2]), header(2, (0, 0, 0), frame_of_reference="1.55")]
    [series] = assemble(headers)
    assert series.problems == ("images of 2 frames of reference",)
    assert series.affine is None
    assert order(series) == ["0", "1", "2"]
    without = [header(n, None, orientation=None, frame_of_reference=f"1.{n}") for n in (1, 2)]
    assert assemble(without)[0].problems == ()


def test_what_a_series_should_have_one_of_is_named():
    [series] = assemble(
        [
            *stack([0, 2]),
            header(2, (10.0, 20.0, 4), info=ImageInfo(64, 48, 1, 16, "DICOM", modality="MR",
                                                      spacing=(0.5, 0.25))),
            header(3, (10.0, 20.0, 6), named=("name", "another")),
            header(4, (10.0, 20.0, 8), named=(None, None)),
        ]
    )  # fmt: skip
    assert series.problems == (
        "images of 2 modalities",
        "its files give 2 dates of birth for one patient",
    )


def test_images_without_positions_go_by_number():
    headers = [header(n, None, orientation=None) for n in (2, 1)]
    [series] = assemble(headers)
    assert order(series) == ["1", "2"]
    assert series.problems == ()
    [series] = assemble([*headers, header(3, (0, 0, 1))])
    assert series.problems == ("some images have no position",)


def test_sizes_that_differ_are_named():
    other = header(5, (10.0, 20.0, 4), info=ImageInfo(32, 48, 1, 16, "DICOM", spacing=(0.5, 0.25)))
    [series] = assemble([*stack([0, 2]), other])
    assert series.problems == ("images of 2 sizes",)
    assert series.affine is None


def test_frames_of_one_file():
    positions = tuple((0.0, 0.0, z) for z in (4.0, 0.0, 2.0))
    [series] = assemble([header(1, None, frames=3, orientations=(AXIAL,) * 3, positions=positions)])
    assert [frame for _, frame in series.places] == [1, 2, 0]
    assert str(series.sources[0]) == "1.dcm#1"
    assert series.sources[0].series is series


def test_patients_are_numbered_alike_in_any_order_and_not_named():
    headers = [
        header(i, None, series_uid=f"1.{i}", study_uid=f"2.{i}", patient=key)
        for i, key in enumerate(["ff", "aa", None, "ff"])
    ]
    numbers = {s.uid: s.patient for s in assemble(headers)}
    assert numbers == {"1.0": "patient 2", "1.1": "patient 1", "1.2": None, "1.3": "patient 2"}
    assert {s.uid: s.patient for s in assemble(headers[::-1])} == numbers


def test_files_without_uids_stand_alone():
    headers = [header(n, None, series_uid=None, study_uid=None, sop_uid=None) for n in (1, 2)]
    assert len(assemble(headers)) == 2
