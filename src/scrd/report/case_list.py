"""The list of cases as a part of a page: rows as data, and what sorts, filters and opens them.

A page that holds it needs nothing beside it but the overlays that it links to. Names of files are
data, never markup: the script puts them in as text, and :func:`policy` lets no other script run.
"""

from __future__ import annotations

import json
import math
import os
from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from urllib.parse import quote

from scrd.report.cases import Cases

RESEARCH = "For research use only. Not a medical device."


def asset(name: str) -> str:
    """A style sheet or script that goes into a page."""
    return files("scrd.report").joinpath("page").joinpath(name).read_text(encoding="utf-8")


def script() -> str:
    """What makes the rows a list."""
    parts = "".join(asset(f"{name}.js") for name in ("rows", "list", "one"))
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def policy() -> str:
    """The page's content security policy: pictures beside it, and the one script of the list."""
    digest = b64encode(sha256(script().encode()).digest()).decode("ascii")
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; "
        f"img-src data: file: 'self'; script-src 'sha256-{digest}'"
    )


def case_list(lists: Sequence[Cases], title: str) -> Iterator[str]:
    """The list in HTML, piece by piece; joined, one ``section`` with its data and script.

    Args:
        lists: one a level, such as studies, series and images; the first is shown first. Those
            without rows are left out.
        title: its heading.
    """
    shown = [cases for cases in lists if cases.total]
    yield '<section class="cases" id="cases" aria-labelledby="cases-title">\n'
    yield f'<h2 id="cases-title">{escape(title)}</h2>\n'
    for cases in shown:
        if told := cases.left_out():
            what = "Images" if cases.noun == "image" else cases.noun.capitalize()
            yield f'<p class="notice">{what}: {escape(told[:1].lower() + told[1:])}</p>\n'
    yield (
        '<noscript><p class="notice">This list needs JavaScript. The same rows are in '
        "scores.csv.</p></noscript>\n"
        '<div id="cases-here"></div>\n'
        '<div id="cases-live" class="hidden-text" role="status" aria-live="polite"></div>\n'
        "</section>\n"
        '<script type="application/json" id="cases-data">['
    )
    for number, cases in enumerate(shown):
        yield "," * bool(number)
        yield from _level(cases)
    yield "]</script>\n<script>"
    yield script()
    yield "</script>\n"


def _level(cases: Cases) -> Iterator[str]:
    """One list as JSON; texts that many rows share are written once."""
    rows = cases.rows
    below = _below([row.name for row in rows])
    texts: dict[str, int] = {}

    def index(text: str) -> int:
        return texts.setdefault(text, len(texts))

    yield f'{{"noun":{_json(cases.noun)},"total":{cases.total},"below":{_json(below)},"rows":['
    for number, row in enumerate(rows):
        yield ",\n" if number else "\n"
        yield _json(
            (
                row.name[len(below) :],
                _finite(row.score),
                _finite(row.p_value),
                None if row.flag is None else int(row.flag),
                [index(doubt) for doubt in row.doubts],
                None if row.refusal is None else index(row.refusal),
                None if row.picture is None else quote(os.fsencode(row.picture)),
                index(row.note),
                [index(name) for name in row.within],
                None if row.abnormal is None else int(row.abnormal),
                index(row.kind),
            )
        )
    yield f'],"texts":{_json(list(texts))}}}'


def _below(names: Sequence[str]) -> str:
    """The folder that all names share, with its last separator; empty where there is none."""
    shared = os.path.commonprefix([name.partition("#")[0] for name in names])
    return shared[: max(shared.rfind("/"), shared.rfind("\\")) + 1]


def _finite(value: float | None) -> float | None:
    """To six digits, more than anybody reads."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def _json(value: object) -> str:
    """JSON that ends no element and opens none, in ASCII."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
