import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from scrd.report.html import Case, Figure, Gallery, write_report

METRICS = {
    "auroc": 0.93251,
    "auroc_ci95": [0.9012, 0.9611],
    "ap": 0.88,
    "f1": 0.8,
    "acc": 0.8125,
    "sensitivity_at_far": 0.675,
    "far": 0.05,
    "false_alarm_rate": 0.0625,
    "n_normal": 160,
    "n_abnormal": 80,
    "seconds_per_image": 0.03125,
    "auroc_by_pooling": {"mean": 0.71, "max": 0.72},
    "by_class": {"glioma": {"auroc": 0.94, "n": 40}},
    "within": {"view": {"AP": {"auroc": 0.727, "n_normal": 18, "n_abnormal": 98}}},
    "localisation": {"pixel_auroc": 0.91, "n_images": 120},
    "confounds": {"file_size": 0.87},
}
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Balanced tags, the text, and every attribute that loads something."""

    def __init__(self, path):
        super().__init__()
        self.open, self.texts, self.images, self.tags, self.loads = [], [], [], [], []
        self.feed(path.read_text("utf-8"))
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.loads += [value for key, value in attrs if key in {"src", "href", "srcset"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def case(**changes):
    values = {
        "name": "test/glioma/7.png",
        "kind": "glioma",
        "label": 1,
        "score": 0.123456,
        "p_value": 0.0099,
        "flag": True,
        "overlay_jpeg": b"\xff\xd8\xff",
    }
    return Case(**(values | changes))


def report(path, **changes):
    parts = {
        "title": "Evaluation",
        "subtitle": "240 images",
        "metrics": METRICS,
        "figures": [Figure("The curve.", '<svg xmlns="http://www.w3.org/2000/svg"/>')],
        "galleries": [Gallery("Best", "The highest scores.", [case()])],
        "notes": ["Lesions are simulated."],
        "settings": {"model": {"size": 128}, "seed": 0, "group": None},
    }
    write_report(path, **(parts | changes))
    return Page(path)


def test_page_shows_all_it_is_given(tmp_path):
    page = report(tmp_path / "report.html")
    for expected in (
        "0.933",
        "95\u00a0% interval 0.901 to 0.961".replace("\u00a0", " "),
        "Sensitivity at 5 % false alarms",
        "67.5 %",
        "6.2 %",
        "81.2 %",
        "160",
        "0.03125",
        "glioma 40 0.940",
        "view AP 18, 98 0.727",
        "Pixel AUROC 0.910",
        "Images 120",
        "Max 0.720",
        "File size 0.870",
        "Lesions are simulated.",
        "test/glioma/7.png",
        "abnormal (glioma)",
        "0.1235",
        "0.0099",
        "flagged",
        "model.size 128",
        "group –",
    ):
        assert expected in page.text
    assert page.text.count("For research use only. Not a medical device.") == 2


def test_page_needs_nothing_beside_it(tmp_path):
    page = report(tmp_path / "report.html")
    assert page.loads and all(value.startswith("data:image/") for value in page.loads)
    assert "script" not in page.tags and "link" not in page.tags
    source = (tmp_path / "report.html").read_text("utf-8")
    assert "@import" not in source and "url(" not in source
    assert all(image["alt"] for image in page.images)
    assert '<html lang="en">' in source and 'name="viewport"' in source


def test_everything_is_escaped(tmp_path):
    evil = "<script>alert('&\"')</script>"
    page = report(
        tmp_path / "report.html",
        title=evil,
        subtitle=evil,
        metrics=METRICS | {"by_class": {evil: {"auroc": 0.5, "n": 1}}, "confounds": {evil: 0.5}},
        figures=[Figure(evil, f"<svg>{evil}</svg>")],
        galleries=[Gallery(evil, evil, [case(name=evil, kind=evil)])],
        notes=[evil],
        settings={evil: evil},
    )
    assert "script" not in page.tags
    assert page.text.count(evil) >= 11


def test_what_is_missing_is_left_out(tmp_path):
    normals = {"false_alarm_rate": 0.05, "n_normal": 100, "n_abnormal": 0, "auroc": None}
    page = report(
        tmp_path / "report.html",
        metrics=normals | {"ap": float("nan"), "by_class": {}},
        figures=[],
        galleries=[Gallery("Empty", "Nothing.", [])],
        notes=[],
        settings={},
    )
    assert "5.0 %" in page.text and "100" in page.text
    for absent in ("AUROC", "precision", "By class", "Figures", "Empty", "Settings", "nan", "None"):
        assert absent not in page.text


def test_unlabelled_cases(tmp_path):
    unknown = case(label=None, kind="", p_value=None, flag=False)
    page = report(tmp_path / "report.html", galleries=[Gallery("Scored", "All.", [unknown])])
    assert "truth" not in page.text and "p-value" not in page.text
    assert "not flagged" in page.text


def test_a_failed_report_leaves_the_old_one(tmp_path):
    class Unprintable:
        def __str__(self):
            raise RuntimeError("no")

    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        report(path, settings={"a": Unprintable()})
    # lone surrogates cannot be encoded: the failure comes while writing
    with pytest.raises(UnicodeEncodeError):
        report(path, title="\ud800")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_template_lies_inside_the_package():
    assert files("scrd.report").joinpath("template.html").is_file()
