from pathlib import Path

import pydicom
import pytest
from PIL import Image

from scrd.data.manifest import read_manifest
from scrd.data.reading import read_image
from scrd.errors import ManifestError
from synthetic_volumes import head, write_dicom, write_nifti


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * len(name))


def change(path: Path, **elements: str | None) -> None:
    dataset = pydicom.dcmread(path)
    for name, value in elements.items():
        setattr(dataset, name, value) if value is not None else delattr(dataset, name)
    dataset.save_as(path)


def table(root: Path, text: str, name: str = "split.csv") -> Path:
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def test_a_folder_of_images_is_all_normal_and_for_training(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "sub/a.JPG", "notes.txt")
    manifest = read_manifest(tmp_path, for_training=True)
    assert [r.name for r in manifest.records] == ["b.png", "sub/a.JPG"]
    assert manifest.train_normals == manifest.records
    assert manifest.test == ()
    assert manifest.records[1].path == tmp_path / "sub" / "a.JPG"
    assert manifest.root == tmp_path


def test_a_tree_gives_labels_kinds_and_masks(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "train/normal/1.png",
        "train/crack/2.png",
        "test/Normal/3.png",
        "test/crack/deep/4.jpg",
        "test/hole/5.png",
        "masks/crack/deep/4.png",
        "masks/normal/3.png",
        "other/6.png",
    )
    manifest = read_manifest(tmp_path)
    rows = {r.name: (r.label, r.kind, r.split) for r in manifest.records}
    assert rows == {
        "train/crack/2.png": (1, "crack", "train"),
        "train/normal/1.png": (0, "normal", "train"),
        "test/Normal/3.png": (0, "Normal", "test"),
        "test/crack/deep/4.jpg": (1, "crack", "test"),
        "test/hole/5.png": (1, "hole", "test"),
    }
    assert [r.name for r in manifest.train_normals] == ["train/normal/1.png"]
    masks = {r.name: r.mask for r in manifest.test}
    assert masks["test/crack/deep/4.jpg"] == tmp_path / "masks" / "crack" / "deep" / "4.png"
    assert masks["test/hole/5.png"] is None
    assert {r.group for r in manifest.records} == {None}


def test_capital_letters_do_not_turn_a_tree_into_a_folder_of_normals(tmp_path: Path) -> None:
    touch(tmp_path, "Train/Normal/1.png", "Test/crack/2.png")
    assert [r.label for r in read_manifest(tmp_path).records] == [0, 1]


def test_a_table_gives_groups_masks_and_attributes(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "path,label,class,split,patient,group,study,mask,view\n"
        "a/1.png, 0 ,healthy,train,p1,g1,s1,,AP\n"
        "a/2.png,1,ill,train,,g2,s2,,\n"
        "../3.png,0,healthy,test,,,s3,,PA\n"
        "\n"
        f"{tmp_path}/4.png,1,ill,test,,,,m/4.png,PA\n",
    )
    manifest = read_manifest(tmp_path)
    assert manifest == read_manifest(path)
    first, second, third, fourth = manifest.records
    assert [r.group for r in manifest.records] == ["p1", "g2", "s3", None]
    assert first.attributes == {"patient": "p1", "group": "g1", "study": "s1", "view": "AP"}
    assert (first.name, first.path) == ("a/1.png", tmp_path / "a" / "1.png")
    assert (first.mask, fourth.mask) == (None, tmp_path / "m" / "4.png")
    assert fourth.path == tmp_path / "4.png"
    assert manifest.train_normals == (first,)
    assert manifest.test == (third, fourth)


def test_a_byte_order_mark_and_quoted_commas_are_understood(tmp_path: Path) -> None:
    text = '\ufeffpath,label,class,split\n"a, b.png",0,healthy,train\n'
    assert read_manifest(table(tmp_path, text)).records[0].name == "a, b.png"


HEADER = "path,label,class,split\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: no column path, label, class, split"),
        ("path,label,split\n", "line 1: no column class"),
        ("path,label,class,split,label\n", "line 1: column label more than once"),
        (HEADER, "no images"),
        (HEADER + "a.png,0,n,train\nb.png,2,n,train\n", "line 3: label is '2'"),
        (HEADER + "a.png,,n,train\n", "line 2: label is ''"),
        (HEADER + "a.png,0,n,val\n", "line 2: split is 'val'"),
        (HEADER + ",0,n,train\n", "line 2: path is empty"),
        (HEADER + "a.png,0,,train\n", "line 2: class is empty"),
        (HEADER + "a.png,0,n\n", "line 2: 3 cells for 4 columns"),
        (HEADER + "a.png,0,n,train,x\n", "line 2: 5 cells for 4 columns"),
        (HEADER + "a.png,0,n,train\nx/../a.png,1,n,test\n", "x/../a.png is already on line 2"),
        (HEADER + '"a.png,0,n,train\n', "cannot be read as CSV"),
    ],
)
def test_errors_name_the_file_the_line_and_the_cause(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = table(tmp_path, text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert str(path) in str(caught.value)


def test_other_sources_that_are_no_data_set(tmp_path: Path) -> None:
    touch(tmp_path, "tree/train/ill/1.png", "loose/test/1.png", "image.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.csv").write_bytes(b"\xfe\x81\x00")
    for name, reason in {
        "nowhere": "no such file or folder",
        "nowhere.csv": "no such file or folder",
        "image.png": "neither a folder nor a .csv file",
        "empty": "no images",
        "tree": "train/ has no folder 'normal'",
        "loose": "test/1.png is in no class folder",
        "binary.csv": "cannot be read as CSV",
    }.items():
        with pytest.raises(ManifestError, match=reason):
            read_manifest(tmp_path / name)


def test_training_needs_normals_and_scoring_does_not(tmp_path: Path) -> None:
    table(tmp_path, HEADER + "a.png,1,ill,train\nb.png,0,healthy,test\n")
    assert len(read_manifest(tmp_path).test) == 1
    with pytest.raises(ManifestError, match="no normal image"):
        read_manifest(tmp_path, for_training=True)


def test_the_fingerprint_sees_changes_but_not_order(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    row_a, row_b = "a.png,0,n,train,p1\n", "b.png,0,n,train,p2\n"
    header = "path,label,class,split,patient\n"

    def fingerprint(*rows: str) -> str:
        return read_manifest(table(tmp_path, header + "".join(rows))).fingerprint

    original = fingerprint(row_a, row_b)
    assert len(original) == 64
    assert fingerprint(row_b, row_a) == original
    changed = {
        fingerprint(row_a),
        fingerprint(row_a, row_b.replace("0", "1")),
        fingerprint(row_a, row_b.replace("train", "test")),
        fingerprint(row_a, row_b.replace("p2", "p1")),
        fingerprint(row_a, row_b, "missing.png,0,n,train,p3\n"),
    }
    assert len(changed) == 5
    assert original not in changed
    (tmp_path / "b.png").write_bytes(b"longer than before")
    assert fingerprint(row_a, row_b) != original


def test_every_file_of_the_real_data_sets_is_found(shared_data: Path) -> None:
    sets = [folder for folder in sorted(shared_data.iterdir()) if (folder / "split.csv").is_file()]
    assert sets
    for folder in sets:
        manifest = read_manifest(folder)
        assert [r.name for r in manifest.records if not r.path.is_file()] == []
        for record in manifest.records[:: max(1, len(manifest.records) // 20)]:
            with Image.open(record.path) as image:
                assert read_image(record.path).shape[:2] == image.size[::-1]


def test_one_patient_for_all_and_missing_patients_are_told(tmp_path: Path) -> None:
    for number in (1, 2):
        write_dicom(tmp_path / str(number), head(number), number)
    assert read_manifest(tmp_path).notes == ()
    for path in (tmp_path / "2").iterdir():
        change(path, PatientID="ID1")
    [note] = read_manifest(tmp_path).notes
    assert "all 16 DICOM images, of 2 studies, carry one Patient ID" in note
    assert "ID1" not in note
    for path in (tmp_path / "2").iterdir():
        change(path, PatientID="")
    assert read_manifest(tmp_path).notes == (
        "8 of 16 DICOM images name no patient: their studies count as patients of their own",
    )
    rows = [f"{n}/{i:03d},0,n,train,p{n}\n" for n in (1, 2) for i in range(8)]
    table(tmp_path, "path,label,class,split,patient\n" + "".join(rows))
    assert read_manifest(tmp_path).notes == ()


def test_dicom_files_without_an_image_are_counted(tmp_path: Path) -> None:
    write_dicom(tmp_path, head(1), 1)
    change(tmp_path / "003", PixelData=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    manifest = read_manifest(tmp_path)
    assert len(manifest.records) == 7
    assert manifest.notes == ("1 DICOM files hold no image and are left out",)


def test_labels_that_contradict_their_class_are_told(tmp_path: Path) -> None:
    rows = ["a.png,1,normal,test", "b.png,0,tumour,test", "c.png,0,x,test", "d.png,1,x,test"]
    table(tmp_path, HEADER + "\n".join(rows) + "\n")
    assert read_manifest(tmp_path).notes == (
        "class 'normal' has label 1 (abnormal)",
        "class 'tumour' has label 0 (normal)",
        "class 'x' has both labels: 1 images 0, 1 images 1",
    )


def test_boxes_of_volumes_are_told(tmp_path: Path) -> None:
    write_nifti(tmp_path / "v.nii.gz", head(1))
    table(tmp_path, HEADER + "v.nii.gz,1,ill,test\n")
    table(tmp_path, "path,x_min,y_min,x_max,y_max\nv.nii.gz,1,1,3,3\n", "boxes.csv")
    assert "mark each of their slices, 8 in all" in read_manifest(tmp_path).notes[0]
