"""The structure that CONTRIBUTING describes: rooms without circles, dependencies downwards."""

import os
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
TOP = {"__init__", "cli", "config", "detector", "errors"}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("scrd", exclude_type_checking_imports=True, cache_dir=None)


def circle(edges):
    """The names that are left when all that depend on nothing are taken away, again and again."""
    while free := {a for a in edges if not edges[a] & edges.keys()}:
        edges = {a: b for a, b in edges.items() if a not in free}
    return set(edges)


def test_no_module_depends_on_itself(graph):
    # the package itself hands out names on demand, and is imported with every module
    modules = graph.modules - {"scrd"}
    edges = {m: graph.find_modules_directly_imported_by(m) - {"scrd"} for m in modules}
    assert circle(edges) == set()


def test_layers_of_contributing_hold():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_five_modules_at_the_top_and_a_sentence_in_every_room():
    package = ROOT / "src" / "scrd"
    assert {p.stem for p in package.glob("*.py")} == TOP
    for room in (p for p in package.iterdir() if (p / "__init__.py").is_file()):
        assert (room / "__init__.py").read_text(encoding="utf-8").startswith('"""'), room.name


def test_the_papers_table_names_files_that_are_there():
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    section = text.split("## Where the paper is in the code")[1].split("\n## ")[0]
    names = re.findall(r"`([\w/]+(?:\.py|/))`", section.replace("`src/scrd/`", ""))
    assert len(names) > 20
    for name in names:
        assert (ROOT / "src" / "scrd" / name).exists(), name
