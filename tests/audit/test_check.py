"""The check of a data set: planted leaks are found, on drawn and on real anatomy."""

import json
import os
import shutil
from dataclasses import asdict, replace

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image, ImageEnhance, ImageOps
from pydicom.uid import RLELossless
from rich.console import Console
from scipy.ndimage import gaussian_filter

from scrd.audit.check import check_dataset
from scrd.audit.findings import print_report
from scrd.data.manifest import Manifest, read_manifest
from scrd.data.record import Record
from synthetic_volumes import head, write_dicom, write_nifti

PLANTS = {
    "jpeg": (lambda p: p, "nearly the same"),
    "mirrored": (ImageOps.mirror, "mirrored left-right"),
    "flipped": (ImageOps.flip, "mirrored top-bottom"),
    "turned90": (lambda p: p.transpose(Image.Transpose.ROTATE_90), "turned 90° counter-clockwise"),
    "turned180": (lambda p: p.transpose(Image.Transpose.ROTATE_180), "turned 180°"),
    "turned270": (lambda p: p.transpose(Image.Transpose.ROTATE_270), "turned 90° clockwise"),
    "brightened": (lambda p: ImageEnhance.Brightness(p).enhance(1.4), "brightened"),
    "contrast": (lambda p: ImageEnhance.Contrast(p).enhance(1.6), None),
    "gamma": (lambda p: p.point([round(255 * (v / 255) ** 0.6) for v in range(256)]), "brightened"),
    "sharpened": (lambda p: ImageEnhance.Sharpness(p).enhance(2.5), None),
    "smaller": (lambda p: p.resize((p.width * 4 // 5, p.height * 4 // 5)), "nearly the same"),
    "both": (lambda p: ImageEnhance.Brightness(ImageOps.mirror(p)).enhance(1.3), None),
}


def drawn(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    head = np.hypot(x / 0.75, y / 0.9)
    tissue = sum(gaussian_filter(rng.standard_normal((128, 128)), s) * s for s in (2, 5, 10))
    grey = (head < 1) * (90 + 25 * tissue / tissue.std()) + 90 * np.exp(-((head - 1) ** 2) / 0.004)
    return Image.fromarray(np.uint8(np.clip(grey, 0, 255)))


def record(path, split, label=0, group=None):
    return Record(path, path.name, label, "normal" if label == 0 else "odd", split, group)


@pytest.fixture
def heads(tmp_path):
    """Thirty different images, the first twenty in train."""
    records = []
    for k in range(30):
        path = tmp_path / f"head{k}.png"
        drawn(k).save(path)
        records.append(record(path, "train" if k < 20 else "test", int(k >= 25)))
    return Manifest(tmp_path, tuple(records))


def plant(manifest, folder, sources):
    """Copies of training images in the test split; the records and what each is a copy of."""
    made, origins = list(manifest.records), {}
    for source, (name, (change, _)) in zip(sources, PLANTS.items(), strict=True):
        path = folder / f"planted-{name}.jpg"
        with Image.open(source.path) as picture:
            change(picture.convert("L")).save(path, quality=80)
        made.append(record(path, "test"))
        origins[path.name] = source.name
    return replace(manifest, records=tuple(made)), origins


def crossing(report):
    found = {}
    for family in report.families:
        for link in family.links:
            if link.crosses:
                found.setdefault(link.first, {})[link.second] = link.relation
                found.setdefault(link.second, {})[link.first] = link.relation
    return found


def test_independent_images_leak_nothing(heads):
    report = check_dataset(heads, workers=2)
    assert not report.has_leak
    assert report.families == report.split_groups == report.unreadable == ()
    assert report.images == 30


def test_planted_copies_are_leaks(heads, tmp_path):
    manifest, origins = plant(heads, tmp_path, heads.records[: len(PLANTS)])
    report = check_dataset(manifest)
    found = crossing(report)
    assert report.has_leak
    assert {name: [*found[name]] for name in origins} == {n: [o] for n, o in origins.items()}
    for name, (_, words) in PLANTS.items():
        planted = f"planted-{name}.jpg"
        assert words in (None, found[planted][origins[planted]])


def test_equal_files_and_equal_pixels(heads, tmp_path):
    (tmp_path / "copy.png").write_bytes((tmp_path / "head0.png").read_bytes())
    drawn(1).save(tmp_path / "pixels.bmp")
    added = (record(tmp_path / "copy.png", "test"), record(tmp_path / "pixels.bmp", "test", 1))
    report = check_dataset(replace(heads, records=heads.records + added))
    assert crossing(report)["copy.png"] == {"head0.png": "same file"}
    assert crossing(report)["pixels.bmp"] == {"head1.png": "same pixels"}
    assert [family.label_conflict for family in report.leaks] == [False, True]


def test_every_equal_file_of_the_other_split_is_named(heads, tmp_path):
    added = []
    for k, split in enumerate(["test", "train", "test", "train"]):
        drawn(99).save(tmp_path / f"same{k}.png")
        added.append(record(tmp_path / f"same{k}.png", split))
    report = check_dataset(replace(heads, records=heads.records + tuple(added)))
    (family,) = report.leaks
    assert (family.train, family.test) == (("same1.png", "same3.png"), ("same0.png", "same2.png"))
    assert {"same0.png", "same2.png"} <= crossing(report).keys()


def test_copies_in_one_split_are_no_leak(heads, tmp_path):
    ImageOps.mirror(drawn(0)).save(tmp_path / "copy.png")
    added = record(tmp_path / "copy.png", "train")
    report = check_dataset(replace(heads, records=(*heads.records, added)))
    assert not report.has_leak
    assert [family.train for family in report.families] == [("head0.png", "copy.png")]
    assert not report.families[0].one_group
    assert any("in their own split" in note for note in report.notes)

    grouped = (replace(heads.records[0], group="7"), *heads.records[1:], replace(added, group="7"))
    report = check_dataset(replace(heads, records=grouped))
    assert report.families[0].one_group
    assert not any("in their own split" in note for note in report.notes)


def test_a_patient_in_both_splits_is_a_leak(heads):
    records = list(heads.records)
    for k in (3, 4, 22):
        records[k] = replace(records[k], group="p1")
    records[5] = replace(records[5], group="p2")
    report = check_dataset(replace(heads, records=tuple(records)))
    (leak,) = report.leaks
    assert (leak.group, leak.train, leak.test) == (
        "p1",
        ("head3.png", "head4.png"),
        ("head22.png",),
    )


def test_broken_and_missing_files_are_named(heads, tmp_path):
    (tmp_path / "head3.png").unlink()
    (tmp_path / "head4.png").write_bytes(b"")
    (tmp_path / "head5.png").write_bytes((tmp_path / "head6.png").read_bytes()[:500])
    report = check_dataset(heads)
    assert [(f.name, f.missing) for f in report.unreadable] == [
        ("head3.png", True),
        ("head4.png", False),
        ("head5.png", False),
    ]
    assert all(file.reason for file in report.unreadable)
    assert not report.has_leak


def test_nothing_readable(tmp_path):
    report = check_dataset(Manifest(tmp_path, (record(tmp_path / "none.png", "train"),)))
    assert len(report.unreadable) == 1
    assert report.properties == report.confounds == ()


def test_odd_sizes_modes_and_depths(heads, tmp_path):
    drawn(3).resize((100, 90)).save(tmp_path / "head3.png")
    drawn(4).convert("RGB").save(tmp_path / "head4.png")
    Image.fromarray(np.asarray(drawn(5), np.uint16) * 200).save(tmp_path / "head5.png")
    properties = {p.name: p for p in check_dataset(heads).properties}
    assert properties["size"].counts == {"128x128": 29, "100x90": 1}
    assert properties["size"].odd == {"head3.png": "100x90"}
    assert properties["mode"].odd == {"head4.png": "RGB"}
    assert properties["depth"].odd == {"head5.png": "16 bit"}
    assert properties["format"].odd == {}


def test_a_confound_is_said_in_words(heads, tmp_path):
    for k in range(25, 30):
        drawn(k).point([v // 2 for v in range(256)]).save(tmp_path / f"head{k}.png")
    notes = check_dataset(heads).notes
    assert any(note.startswith("mean brightness alone separates the classes") for note in notes)


def test_report_is_json_and_prints(heads, tmp_path):
    manifest, origins = plant(heads, tmp_path, heads.records[: len(PLANTS)])
    (tmp_path / "head19.png").unlink()
    report = check_dataset(manifest)
    content = report.to_dict()
    assert json.loads(json.dumps(content))["families"][0]["links"][0] == asdict(
        report.families[0].links[0]
    )
    assert content["has_leak"] is True
    assert {name for family in content["families"] for name in family["test"]} >= origins.keys()

    console = Console(width=150, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    print_report(report, console)
    text = console.export_text()
    assert "LEAK: copies in train and test" in text
    assert "planted-mirrored.jpg (test)" in text
    assert "mirrored left-right" in text
    assert f"and {len(PLANTS) - 10} more, all in check.json" in text
    assert "head19.png" in text


def sample(manifest, train, test):
    chosen = []
    for split, count in (("train", train), ("test", test)):
        records = [r for r in manifest.records if r.split == split]
        chosen += records[:: max(1, len(records) // count)]
    return replace(manifest, records=tuple(chosen))


@pytest.mark.parametrize("name", ["brain-tumor-mri", "isic2018", "rsna-cxr"])
def test_copies_planted_in_real_images_are_leaks(name, tmp_path, shared_data):
    manifest = sample(read_manifest(shared_data / name), 150, 60)
    sources = [r for r in manifest.records if r.split == "train"][5::10][: len(PLANTS)]
    manifest, origins = plant(manifest, tmp_path, sources)
    found = crossing(check_dataset(manifest))
    assert {n: o for n, o in origins.items() if o not in found.get(n, ())} == {}


@pytest.mark.parametrize("name", ["brain-tumor-boxes", "isic2018", "rsna-cxr"])
def test_real_splits_without_leak(name, shared_data):
    assert check_dataset(sample(read_manifest(shared_data / name), 500, 300)).leaks == ()


def test_the_brain_set_still_holds_copies_across_its_split(shared_data):
    """Its groups were drawn at correlation 0.99, above which some brightened copies do not come."""
    manifest = read_manifest(shared_data / "brain-tumor-mri")
    report = check_dataset(manifest)
    found = crossing(report)
    assert found["Training/notumor/Tr-no_1464.jpg"]["Testing/notumor/Te-no_0289.jpg"] == "darkened"
    assert report.split_groups == ()
    # Nothing of it touches a tumour image, and no copy is labelled both ways.
    assert all("notumor" in name for family in report.leaks for name in family.test)
    assert not any(family.label_conflict for family in report.families)
    # The published confounds of the set's README.
    figures = {c.name: c.test for c in report.confounds}
    published = {"mean brightness": 0.202, "contrast": 0.182, "sharpness": 0.093}
    published |= {"near black": 0.692, "file size": 0.109}
    for number, value in published.items():
        assert figures[number] == pytest.approx(value, abs=0.002)


def test_masks_and_boxes_that_say_nothing_clear_are_named(tmp_path):
    lesion = np.zeros((128, 128), np.uint8)
    lesion[30:60, 40:70] = 255
    masks = {
        "sound": lesion,
        "empty": lesion * 0,
        "inverted": 255 - lesion,
        "labels": lesion // 255 + 2 * (np.arange(128) > 100),
        "small": lesion[:64],
    }
    records = []
    for k, (name, mask) in enumerate(masks.items()):
        drawn(k).save(tmp_path / f"{name}-image.png")
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path / f"{name}.png")
        own = record(tmp_path / f"{name}-image.png", "test", 1)
        records.append(replace(own, mask=tmp_path / f"{name}.png"))
    records.append(replace(records[0], mask=None, boxes=((9.0, 9.0, 400.0, 20.0),)))
    report = check_dataset(Manifest(tmp_path, tuple(records)))
    assert [(m.file, m.used) for m in report.marks] == [
        ("empty.png", False),
        ("inverted.png", True),
        ("labels.png", True),
        ("small.png", False),
        ("sound-image.png", True),
    ]
    assert "5 findings on masks and boxes: 2 of them" in " ".join(report.notes)
    assert report.to_dict()["marks"][0]["name"] == "empty-image.png"


def test_volumes_of_unclear_geometry_are_named_once(tmp_path):
    for i in range(2):
        write_nifti(tmp_path / f"{i}.nii.gz", head(i))
    image = nibabel.load(tmp_path / "1.nii.gz")
    image.header["qform_code"] = image.header["sform_code"] = 0
    nibabel.save(nibabel.Nifti1Image(image.dataobj, None, image.header), tmp_path / "1.nii.gz")
    report = check_dataset(read_manifest(tmp_path))
    [note] = [note for note in report.notes if note.startswith("The series of")]
    assert note.startswith("The series of 1.nii.gz#0: its header does not say how it lies")


def test_dicom_copies_in_both_splits_are_leaks(tmp_path):
    train, test = tmp_path / "train" / "normal", tmp_path / "test" / "normal"
    write_dicom(train, head(0), 0)
    write_dicom(test, head(1), 1)
    shutil.copy(train / "002", test / "byte-equal")
    shutil.copy(test / "003", test / "within")
    other = pydicom.dcmread(train / "004")
    other.PatientID, other.SOPInstanceUID = "somebody else", "1.2.3.77"
    other.SeriesInstanceUID = "1.2.3.78"
    other.save_as(test / "relabelled")
    squeezed = pydicom.dcmread(train / "005")
    squeezed.compress(RLELossless, generate_instance_uid=False)
    squeezed.save_as(test / "squeezed")
    manifest = read_manifest(tmp_path)
    assert manifest.counts == "train: 8 normal (8 normal); test: 12 normal (12 normal)"
    found = crossing(check_dataset(manifest))
    assert found["train/normal/002"]["test/normal/byte-equal"] == "same file"
    assert found["train/normal/004"]["test/normal/relabelled"] == "same pixels"
    assert found["train/normal/005"]["test/normal/squeezed"] == "same pixels"
    groups = {record.name: record.group for record in manifest.records}
    assert groups["test/normal/byte-equal"] == groups["train/normal/002"]
    assert groups["test/normal/relabelled"] != groups["train/normal/004"]


def test_what_the_manifest_left_out_is_in_the_report(tmp_path):
    for folder in ("train/normal", "val/normal"):
        (tmp_path / folder).mkdir(parents=True)
        drawn(len(folder)).save(tmp_path / folder / "0.png")
    (tmp_path / "archive.zip").touch()
    understood = " | ".join(check_dataset(read_manifest(tmp_path)).understood)
    for word in ("train: 1 normal (1 normal)", "val (1 images)", "1 .zip"):
        assert word in understood
