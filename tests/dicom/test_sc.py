import numpy as np
import pydicom
import pytest
from synthetic_dicom import enhanced, projection, scored_study, slices

from scrd.dicom.write import Unwritten, write_objects
from scrd.report.overlay import draw


def overlays(folder, datasets, **options):
    found, detector = scored_study(folder, datasets, **options)
    outcomes = write_objects(folder / "out", found, detector, ["sc"])
    return found, detector, [pydicom.dcmread(o.path) for o in outcomes]


def test_the_pixels_are_the_overlay(tmp_path):
    found, detector, (made,) = overlays(tmp_path, [projection()])
    picture = draw(detector, found.series[0].scored[0], "Anomaly map")
    np.testing.assert_array_equal(made.pixel_array, np.asarray(picture))
    assert made.PhotometricInterpretation == "RGB"


def test_it_refers_to_its_source_and_says_what_it_is(tmp_path):
    dataset = projection()
    dataset.ImageLaterality = "R"
    _, _, (made,) = overlays(tmp_path, [dataset])
    (source,) = made.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == dataset.SOPInstanceUID
    assert source.ReferencedSOPClassUID == dataset.SOPClassUID
    assert "ReferencedFrameNumber" not in source
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert made.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert made.BurnedInAnnotation == "NO"
    assert made.PatientOrientation == ["L", "F"]
    assert made.Laterality == "R"


@pytest.mark.parametrize(("view", "orientation"), [("PA", ["L", "F"]), ("LL", None)])
def test_an_unknown_orientation_stays_empty(tmp_path, view, orientation):
    dataset = projection()
    dataset.ViewPosition = view
    _, _, (made,) = overlays(tmp_path, [dataset])
    assert "PatientOrientation" in made and "Laterality" in made
    assert (made.PatientOrientation or None) == orientation


def test_an_image_that_is_oblique_twice(tmp_path):
    cosines = (0.6, 0.8, 0, -0.64, 0.48, -0.6)
    _, _, (made,) = overlays(tmp_path, list(slices(1, orientation=cosines)))
    assert made.PatientOrientation == ["PL", "RFP"]


def test_no_name_of_a_file_is_drawn(tmp_path):
    pictures = []
    for folder in (tmp_path / "a", tmp_path / "Miller^John 1948"):
        _, _, (made,) = overlays(folder, [projection()])
        pictures.append(made.PixelData)
    assert pictures[0] == pictures[1]


def sources(made):
    return [d.SourceImageSequence[0].ReferencedSOPInstanceUID for d in made]


def test_a_small_series_is_shown_whole(tmp_path):
    datasets = [projection(i) for i in range(4)]
    _, _, made = overlays(tmp_path, datasets)
    assert sources(made) == [d.SOPInstanceUID for d in datasets]
    assert [d.InstanceNumber for d in made] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        ([1.3, 0.1, 2.0, 1.5, 0.2], [3, 4, 1]),  # flagged are those above 1.25
        ([0.3, 0.1, 0.9, 0.5, 0.2], [3]),
        ([2 + i / 20 for i in range(18)], list(range(18, 2, -1))),
    ],
)
def test_of_a_large_series_the_worst_are_shown(tmp_path, scores, shown):
    _, _, made = overlays(tmp_path, list(slices(len(scores))), scores=scores)
    assert sources(made) == [f"1.2.3.2.{i}" for i in shown]


def test_a_frame_is_named(tmp_path):
    _, _, made = overlays(tmp_path, [enhanced(2)])
    assert [d.SourceImageSequence[0].ReferencedFrameNumber for d in made] == [1, 2]
    assert len({d.SOPInstanceUID for d in made}) == 2
    assert made[0].PatientOrientation == ["L", "P"]


def test_pixels_that_cannot_be_read_again(tmp_path):
    dataset = projection()
    found, detector = scored_study(tmp_path, [dataset])
    dataset.PixelData = dataset.PixelData[:100]
    dataset.save_as(found.series[0].series.places[0][0], enforce_file_format=True)
    outcomes = write_objects(tmp_path / "out", found, detector, ["sc", "sr"])
    assert isinstance(outcomes[0], Unwritten)
    assert not isinstance(outcomes[1], Unwritten)
