"""What `metrics.json` holds, against scikit-learn and by hand."""

import dataclasses
import json
import math

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from scrd.config import Config
from scrd.data.marks import mark
from scrd.data.record import Record
from scrd.detector import Detector
from scrd.errors import ImageError, ManifestError
from scrd.evaluation.test_set import evaluate, evaluate_scores
from scrd.outputs.eval_folder import write_evaluation
from scrd.storage.plain import to_plain


def record(label, kind="normal", group=None, **attributes):
    return Record(None, "x.png", label, kind, "test", group, attributes=attributes)


@pytest.fixture
def case():
    """40 normals, 12 gliomas, 8 cysts, in two views."""
    rng = np.random.default_rng(0)
    kinds = ["normal"] * 40 + ["glioma"] * 12 + ["cyst"] * 8
    records = [
        record(int(kind != "normal"), kind, f"p{i // 2}", view="AP" if i % 3 else "PA", id=str(i))
        for i, kind in enumerate(kinds)
    ]
    scores = rng.normal(size=60) + [1.5 * r.label for r in records]
    return records, scores.round(1)


def test_figures_from_scores(case):
    records, scores = case
    labels = np.array([r.label for r in records])
    other = {"mean": -scores, "top": scores}
    found = evaluate_scores(records, scores, other, threshold=1.0, far=0.1)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert found["ap"] == pytest.approx(average_precision_score(labels, scores))
    for name in ("auroc", "ap"):
        low, high = found[f"{name}_ci95"]
        assert low < found[name] < high
    assert found["false_alarm_rate"] == pytest.approx((scores[labels == 0] >= 1.0).mean())
    assert found["sensitivity"] == pytest.approx((scores[labels == 1] >= 1.0).mean())
    assert (found["n_normal"], found["n_abnormal"]) == (40, 20)
    assert (found["far"], found["threshold"]) == (0.1, 1.0)
    assert found["auroc_by_pooling"]["top"] == found["auroc"]
    assert found["auroc_by_pooling"]["mean"] == pytest.approx(1 - found["auroc"])
    json.dumps(found, allow_nan=False)


def test_intervals_know_of_patients(case):
    records, scores = case
    alone = [dataclasses.replace(r, group=None) for r in records]
    twins = [dataclasses.replace(r, group=f"p{i % 60 // 2}") for i, r in enumerate(records * 2)]
    doubled = np.tile(scores, 2)

    def width(rs, s):
        low, high = evaluate_scores(rs, s, {}, threshold=0, far=0.1)["auroc_ci95"]
        return high - low

    # every image twice is no more evidence, if one is told that the copies belong together
    naive = width([dataclasses.replace(r, group=None) for r in twins], doubled)
    assert naive < 0.85 * width(alone, scores)
    assert width(twins, doubled) > 1.15 * naive


def test_each_class_against_all_normals(case):
    records, scores = case
    found = evaluate_scores(records, scores, {}, threshold=0, far=0.1)["by_class"]
    assert list(found) == ["cyst", "glioma"]
    for kind, n in (("cyst", 8), ("glioma", 12)):
        chosen = [i for i, r in enumerate(records) if r.kind in ("normal", kind)]
        labels = [records[i].label for i in chosen]
        assert found[kind]["n"] == n
        assert found[kind]["auroc"] == pytest.approx(roc_auc_score(labels, scores[chosen]))


def test_within_compares_only_images_that_share_a_value(case):
    records, scores = case
    found = evaluate_scores(records, scores, {}, threshold=0, far=0.1)["within"]
    assert list(found) == ["view"]  # an id that differs everywhere is no stratum
    for view in ("AP", "PA"):
        chosen = [i for i, r in enumerate(records) if r.attributes["view"] == view]
        labels = [records[i].label for i in chosen]
        stratum = found["view"][view]
        assert stratum["auroc"] == pytest.approx(roc_auc_score(labels, scores[chosen]))
        assert stratum["n_abnormal"] == sum(labels)
        assert stratum["n_normal"] == len(labels) - sum(labels)


def test_a_confounded_detector_is_exposed_within():
    # the score follows the view alone, and so does the label, mostly
    records = [record(int(i % 10 < 8), "ill", view="AP") for i in range(50)]
    records += [record(int(i % 10 < 2), "ill", view="PA") for i in range(50)]
    scores = np.array([float(r.attributes["view"] == "AP") for r in records])
    found = evaluate_scores(records, scores, {}, threshold=0.5, far=0.1)
    assert found["auroc"] == pytest.approx(0.8)
    assert [s["auroc"] for s in found["within"]["view"].values()] == [0.5, 0.5]


@pytest.mark.parametrize(("label", "rate"), [(0, "false_alarm_rate"), (1, "sensitivity")])
def test_one_class_gives_what_it_can(label, rate):
    records = [record(label, "k") for _ in range(4)]
    found = evaluate_scores(records, np.arange(4.0), {}, threshold=3.0, far=0.1)
    assert found[rate] == 0.25
    assert set(found) == {"n_normal", "n_abnormal", "far", "threshold", rate}


def test_an_infinite_threshold_is_none(case):
    records, scores = case
    found = evaluate_scores(records, scores, {}, threshold=math.inf, far=0.1)
    assert found["threshold"] is None
    assert found["false_alarm_rate"] == found["sensitivity"] == 0
    json.dumps(found, allow_nan=False)


SPOT = (slice(6, 16), slice(40, 56))  # rows, columns of the lesion


def slide(rng, abnormal=False, size=(64, 72)):
    rows = np.mgrid[: size[0], : size[1]][0]
    image = 70 + rows + rng.normal(0, 4, size)
    if abnormal:
        image[SPOT] = 245
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """30 normals to train on; 8 normals, 6 masked lesions and 3 unmasked ones to test on."""
    root, rng = tmp_path_factory.mktemp("tree"), np.random.default_rng(1)
    parts = (("train/normal", 30), ("test/normal", 8), ("test/lesion", 6), ("test/haze", 3))
    for folder, count in (*parts, ("masks/lesion", 6)):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            if folder.startswith("masks"):
                mask = np.zeros((64, 72), np.uint8)
                mask[SPOT] = 255
                Image.fromarray(mask).save(root / folder / f"{i}.png")
            else:
                slide(rng, folder[5:] in ("lesion", "haze")).save(root / folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def detector(tree):
    config = Config(image_size=64, batch_size=4, iterations=12, false_alarm_rate=0.2, pooling="top")
    return Detector.fit(tree, config, device="cpu")


@pytest.fixture(scope="module")
def evaluation(detector, tree):
    return evaluate(detector, tree)


CONTRACT = {
    *("auroc", "auroc_ci95", "ap", "f1", "acc", "sensitivity_at_far", "false_alarm_rate"),
    *("n_normal", "n_abnormal", "seconds_per_image", "settings"),
}


def test_metrics_keep_the_contract(evaluation, detector, tree):
    metrics = evaluation.metrics
    assert set(metrics) >= CONTRACT
    text = json.dumps(metrics, allow_nan=False)
    assert str(tree.parent) not in text  # the machine's paths are nobody's business
    for name in ("auroc", "ap", "f1", "acc", "sensitivity_at_far", "false_alarm_rate"):
        assert 0 <= metrics[name] <= 1
    assert (metrics["n_normal"], metrics["n_abnormal"], metrics["n_failed"]) == (8, 9, 0)
    assert set(metrics["by_class"]) == {"lesion", "haze"}
    assert set(metrics["auroc_by_pooling"]) == {"areas", "mean", "top", "max"}
    assert metrics["pooling"] == "top"
    assert metrics["seconds_per_image"] > 0
    assert sum(metrics["scale_weights"]) == pytest.approx(1, abs=1e-5)
    assert all(0 <= v <= 1 for v in metrics["confounds"].values())
    settings = metrics["settings"]
    assert settings["config"] == to_plain(detector.config)
    assert settings["evaluated"]["versions"]["scrd"]


def test_metrics_come_from_the_scores(evaluation, detector):
    labels = [r.label for r in evaluation.records]
    scores = [s.score for s in evaluation.scored]
    assert evaluation.metrics["auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert evaluation.metrics["threshold"] == detector.calibration.threshold
    assert [r.path for r in evaluation.records] == [s.path for s in evaluation.scored]


def test_masks_give_localisation_with_its_baselines(evaluation, detector):
    found = evaluation.metrics["localisation"]
    assert found["n_images"] == found["n_regions"] == 6
    maps, masks, hits = [], [], []
    for r, s in zip(evaluation.records, evaluation.scored, strict=True):
        if r.kind == "haze":  # abnormal, but nobody knows where
            continue
        maps.append(detector.source_map(s))
        masks.append(np.zeros((64, 72), bool))
        if r.kind == "lesion":
            masks[-1][SPOT] = True
            hits.append(masks[-1].ravel()[maps[-1].argmax()])
    truth, values = np.stack(masks).ravel(), np.stack(maps).ravel()
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, values), abs=1e-4)
    assert found["pointing_hit_rate"] == pytest.approx(np.mean(hits))
    assert found["brightest_place_hit_rate"] == 1  # the lesion is the brightest place
    assert found["centre_hit_rate"] == 0  # and not in the middle


def table(folder, rows, header="path,label,class,split"):
    path = folder / "split.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_boxes_do_as_well_as_masks(evaluation, detector, tree, tmp_path):
    rows = [f"{tree}/test/normal/{i}.png,0,normal,test" for i in range(8)]
    rows += [f"{tree}/test/lesion/{i}.png,1,lesion,test" for i in range(6)]
    boxes = [f"{tree}/test/lesion/{i}.png,40,6,56,16" for i in range(6)]
    (tmp_path / "boxes.csv").write_text("\n".join(["path,x_min,y_min,x_max,y_max", *boxes]) + "\n")
    found = evaluate(detector, table(tmp_path, rows)).metrics["localisation"]
    expected = evaluation.metrics["localisation"]
    assert found == pytest.approx(expected, rel=1e-3)


def test_without_masks_or_boxes_there_is_no_localisation(detector, tree, tmp_path):
    rows = [f"{tree}/test/normal/0.png,0,normal,test", f"{tree}/test/haze/0.png,1,haze,test"]
    assert "localisation" not in evaluate(detector, table(tmp_path, rows)).metrics


@pytest.mark.parametrize("kind", ["normal", "lesion"])
def test_a_test_set_of_one_class(detector, tree, tmp_path, kind):
    rows = [f"{tree}/test/{kind}/{i}.png,{int(kind != 'normal')},{kind},test" for i in range(5)]
    metrics = evaluate(detector, table(tmp_path, rows)).metrics
    assert "auroc" not in metrics and "confounds" not in metrics
    assert ("false_alarm_rate" in metrics) == (kind == "normal")
    assert ("sensitivity" in metrics) == (kind == "lesion")
    json.dumps(metrics, allow_nan=False)


def test_failures_are_counted_and_named(detector, tree, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    rows = [f"{tree}/test/normal/{i}.png,0,normal,test" for i in range(3)]
    rows += ["broken.png,0,normal,test", "absent.png,1,haze,test"]
    rows += [f"{tree}/test/haze/{i}.png,1,haze,test" for i in range(2)]
    found = evaluate(detector, table(tmp_path, rows))
    assert [f.path.name for f in found.failures] == ["broken.png", "absent.png"]
    assert found.metrics["n_failed"] == 2
    assert (found.metrics["n_normal"], found.metrics["n_abnormal"]) == (3, 2)


def test_a_test_set_that_cannot_be_scored(detector, tree, tmp_path):
    with pytest.raises(ManifestError, match="no image in the split 'test'"):
        evaluate(detector, tree / "train" / "normal")
    rows = ["a.png,0,normal,test", "b.png,1,haze,test"]
    with pytest.raises(ImageError, match=r"a\.png: no such file"):
        evaluate(detector, table(tmp_path, rows))


def masked(tree, tmp_path, mask):
    """A table of three normals and two lesions, the first with the given mask."""
    mask.save(tmp_path / "mask.png")
    rows = [f"{tree}/test/normal/{i}.png,0,normal,test," for i in range(3)]
    rows.append(f"{tree}/test/lesion/0.png,1,lesion,test,mask.png")
    rows.append(f"{tree}/test/lesion/1.png,1,lesion,test,{tree}/masks/lesion/1.png")
    return table(tmp_path, rows, "path,label,class,split,mask")


def test_a_mask_that_cannot_be_used_is_named_and_its_image_scored(detector, tree, tmp_path):
    found = evaluate(detector, masked(tree, tmp_path, Image.new("L", (64, 64), 255)))
    (failure,) = found.failures
    assert str(failure).endswith("mask.png: the mask is 64x64, its image 72x64")
    assert len(found.scored) == 5
    assert found.metrics["n_failed"] == 0  # of the images
    assert found.metrics["localisation"]["n_images"] == 1


def test_an_empty_mask_of_an_abnormal_image_is_named(detector, tree, tmp_path):
    found = evaluate(detector, masked(tree, tmp_path, Image.new("L", (72, 64), 0)))
    (failure,) = found.failures
    assert "mask.png: the mask marks nothing" in str(failure)
    assert found.doubts == ()


def test_a_doubtful_mask_is_named_and_used(detector, tree, tmp_path):
    inverted = np.full((64, 72), 255, np.uint8)
    inverted[SPOT] = 0
    found = evaluate(detector, masked(tree, tmp_path, Image.fromarray(inverted)))
    (doubt,) = found.doubts
    assert doubt.path.name == "mask.png"
    assert "inverted" in doubt.reason
    assert found.failures == ()
    assert found.metrics["localisation"]["n_images"] == 2
    write_evaluation(tmp_path / "out", detector, found)
    table = (tmp_path / "out" / "marks.csv").read_text()
    assert table.splitlines()[0] == "path,reason,used"
    assert "mask.png,the mask marks all of the image's border: is it inverted?,1" in table
    assert (
        "0 masks or boxes were left out, and 1 are doubtful"
        in (tmp_path / "out" / "report.html").read_text()
    )


def test_a_box_outside_its_image_is_named_and_its_image_scored(detector, tree, tmp_path):
    rows = [f"{tree}/test/normal/{i}.png,0,normal,test" for i in range(3)]
    rows += [f"{tree}/test/lesion/{i}.png,1,lesion,test" for i in range(2)]
    boxes = [f"{tree}/test/lesion/0.png,100,6,116,16", f"{tree}/test/lesion/1.png,40,6,56,16"]
    (tmp_path / "boxes.csv").write_text("\n".join(["path,x_min,y_min,x_max,y_max", *boxes]) + "\n")
    found = evaluate(detector, table(tmp_path, rows))
    assert [f.path for f in found.failures] == [tree / "test/lesion/0.png"]
    assert len(found.scored) == 5
    assert found.metrics["localisation"]["n_images"] == 1


def test_an_empty_mask_beside_another_does_not_count(detector, tree, tmp_path):
    data = masked(tree, tmp_path, Image.new("L", (72, 64), 0))
    found = evaluate(detector, data).metrics["localisation"]
    assert found["n_images"] == 1
    assert found["brightest_place_hit_rate"] == 1


def test_empty_masks_alone_do_not_lose_the_scores(detector, tree, tmp_path):
    data = masked(tree, tmp_path, Image.new("L", (72, 64), 0))
    rows = [line for line in data.read_text().splitlines() if "lesion/1" not in line]
    data.write_text("\n".join(rows) + "\n")
    metrics = evaluate(detector, data).metrics
    assert "auroc" in metrics
    assert "localisation" not in metrics


def test_marks_join_mask_and_boxes(tmp_path):
    mask = np.zeros((20, 30, 3), np.uint8)
    mask[2:4, 5:9, 1] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    both = dataclasses.replace(
        record(1), mask=tmp_path / "mask.png", boxes=((20.0, 10.0, 23.0, 12.0),)
    )
    expected = np.zeros((20, 30), bool)
    expected[2:4, 5:9] = expected[10:12, 20:23] = True
    np.testing.assert_array_equal(mark(both, (20, 30)).pixels, expected)
    assert not mark(record(0), (20, 30)).pixels.any()
