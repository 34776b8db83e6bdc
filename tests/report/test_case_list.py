"""The list of cases as data in a page: what is kept, in which order, and that names stay names."""

import json
import re
from html.parser import HTMLParser

import pytest

from scrd.report.case_list import case_list, policy, script
from scrd.report.cases import Cases, Row
from scrd.report.html import write_report

HOSTILE = [
    "</script><script>alert(1)</script>.png",
    "a\"b'c&d<!--.png",
    "line\nbreak\u2028and\u2029.png",
    "ünï 图像 \U0001f9e0.png",
    "not utf-8 \udce4.png",
    "]]>&lt;\\u003c.png",
]


class Scripts(HTMLParser):
    """The scripts of a page, as a browser cuts them out, and the tags that it sees."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.tags, self._inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.scripts[-1] += data


def page_of(*lists):
    return "".join(case_list(lists, "Cases"))


def data(page):
    return json.loads(Scripts(page).scripts[0])


def names(level):
    return [level["below"] + row[0] for row in level["rows"]]


def cases(*rows, most=100, noun="image"):
    found = Cases(noun, most)
    for row in rows:
        found.add(row)
    return found


def test_hostile_names_and_reasons_are_data_and_end_nothing():
    rows = [
        Row(name, 1.0, 0.5, doubts=(name,), picture=f"overlays/{i}.jpg", within=(name,), note=name)
        for i, name in enumerate(HOSTILE)
    ]
    refused = [Row(name, None, refusal=name, kind=name) for name in HOSTILE]
    page = page_of(cases(*rows, *refused))
    seen = Scripts(page)
    assert len(seen.scripts) == 2
    assert seen.scripts[1] == script()
    assert set(seen.tags) == {"section", "h2", "noscript", "p", "div", "script"}
    assert "alert(1)" not in page.replace(seen.scripts[0], "")
    assert page.replace(script(), "").isascii()
    (level,) = data(page)
    assert names(level) == [*HOSTILE, *HOSTILE]
    assert {level["texts"][row[5]] for row in level["rows"][len(rows) :]} == set(HOSTILE)


def test_a_page_lets_no_script_run_but_that_of_the_list():
    assert re.search(r"default-src 'none'.*script-src 'sha256-[A-Za-z0-9+/=]{44}'$", policy())
    assert "</" not in script() and "innerHTML" not in script()


def test_pictures_are_addresses():
    (level,) = data(page_of(cases(Row("a", 1.0, picture="overlays/a #1?%/ü.jpg"), Row("b", 2.0))))
    assert [row[6] for row in level["rows"]] == ["overlays/a%20%231%3F%25/%C3%BC.jpg", None]


def test_levels_keep_their_order_and_those_without_rows_are_left_out():
    study, image = Row("1.2", 1.0, 0.5), Row("b", float("nan"), 0.5)
    levels = data(page_of(cases(study, noun="study"), cases(noun="series"), cases(image)))
    assert [(level["noun"], level["total"]) for level in levels] == [("study", 1), ("image", 1)]
    assert levels[1]["rows"][0][1:3] == [None, 0.5]


@pytest.mark.parametrize(
    ("given", "below"),
    [
        (["/a/b/c.png", "/a/b/d/e.png"], "/a/b/"),
        (["/a/v.nii#0", "/a/v.nii#1"], "/a/"),
        (["a.png"], ""),
        (["s3://x/1.png", "s3://x/y/2.png"], "s3://x/"),
        (["/a/b.png", "c.png"], ""),
    ],
)
def test_a_common_folder_is_said_once(given, below):
    (level,) = data(page_of(cases(*(Row(name, 1.0) for name in given))))
    assert level["below"] == below
    assert names(level) == given


def test_states_are_counted_and_doubts_beside_them():
    found = cases(
        Row("a", 1.0),
        Row("b", 2.0, flag=True, doubts=("odd",)),
        Row("c", None, refusal="broken"),
        Row("d", 3.0, doubts=("odd", "dark")),
    )
    assert found.counts == {"quiet": 1, "flagged": 1, "refused": 1, "doubtful": 1}
    assert (found.total, found.doubted, found.left_out()) == (4, 2, None)


def test_of_very_many_those_that_matter_are_kept_in_their_order():
    rows = [Row(f"q{i}", float(i % 7)) for i in range(50)]
    rows[3], rows[40] = Row("f", 0.0, flag=True), Row("r", None, refusal="broken")
    rows[20] = Row("d", -1.0, doubts=("odd",))
    found = cases(*rows, most=10)
    # 6 is the highest score, which six of the others have; the seventh is the first with 5
    kept = ["f", "q5", "q6", "q13", "d", "q27", "q34", "r", "q41", "q48"]
    assert [row.name for row in found.rows] == kept
    assert found.total == 50
    assert "10 of 50 rows: all that are flagged, refused or doubtful" in found.left_out()
    assert "10 of 50 rows" in page_of(found)


def test_even_the_doubtful_can_be_too_many():
    rows = [Row(f"d{i}", float(i), doubts=("odd",)) for i in range(30)]
    found = cases(*rows, *(Row(f"f{i}", 0.0, flag=True) for i in range(4)), Row("q", 9e9), most=10)
    assert [row.name for row in found.rows] == [
        *(f"d{i}" for i in range(24, 30)),
        *(f"f{i}" for i in range(4)),
    ]
    assert found.left_out() == (
        "This list holds 10 of 35 rows: all that are flagged, all that are refused, 6 of 30 that "
        "are doubtful, those with the highest scores. The rest is only in scores.csv."
    )


def test_a_report_holds_the_list(tmp_path):
    rows = [Row("x", 1.0, 0.5, True, abnormal=True, kind=HOSTILE[0]), Row("y", 2.0, abnormal=False)]
    parts = {"metrics": {}, "figures": [], "galleries": [], "notes": [], "settings": {}}
    path = tmp_path / "report.html"
    write_report(path, title="T", subtitle="S", **parts, cases=cases(*rows))
    text = path.read_text()
    seen = Scripts(text)
    assert len(seen.scripts) == 2 and "alert(1)" not in text.replace(seen.scripts[0], "")
    (level,) = json.loads(seen.scripts[0])
    assert [row[9] for row in level["rows"]] == [1, 0]
    assert "All cases" in text and "sha256-" in text
