"""Suites: what they expand to, and what they refuse."""

import pytest

from scrd import baselines
from scrd.bench.budgets import BUDGETS
from scrd.bench.suite import SuiteError
from scrd.bench.suite_file import bundled_suites, read_suite
from scrd.objectives import OBJECTIVES

BUNDLED = {
    "methods",
    *("paper-table1", "paper-table2", "paper-table3", "paper-table4", "paper-table5"),
    *("paper-figure3", "paper-figure4", "objectives", "intensity"),
    *("precision", "resolution", "lesions", "effects", "vit"),
    *("paper-figure2", "paper-figures5to7", "heat-maps"),
}


SELECTED = 'label = "corner"\nmethod = "rd"\nselect = "test"\nsettings = { pooling = "mean" }'


def edited(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return str(path)


def test_runs_are_methods_by_sets_by_seeds(suite_file):
    runs = read_suite(str(suite_file)).runs("small")
    asked = [(r.config.seed, r.data, r.method) for r in runs]
    # the row that only pools otherwise shares its runs, and the first seed comes first
    assert asked == [
        (seed, data, method)
        for seed in (0, 1)
        for data in ("brain-tumor-mri", "skin")
        for method in ("brightness", "corner")
    ]
    assert {(r.config.image_size, r.config.iterations, r.config.batch_size) for r in runs} == {
        (64, 3, 4)
    }
    assert runs[0].config.teacher == BUDGETS["small"]["teacher"]


def test_a_choice_of_runs(suite_file):
    suite = read_suite(str(suite_file))
    runs = suite.runs("small", sets=["skin"], methods=["corner"], seeds=[7])
    assert [(r.data, r.method, r.config.seed) for r in runs] == [("skin", "corner", 7)]
    assert {r.method for r in suite.runs("small", rows=["bright, top"])} == {"brightness"}
    for wrong in ({"sets": ["knee"]}, {"rows": ["later"]}, {"methods": ["rd"]}):
        with pytest.raises(SuiteError, match=f"tiny.toml: no .*{next(iter(wrong.values()))[0]}"):
            suite.runs("small", **wrong)
    with pytest.raises(SuiteError, match=r"tiny.toml: no budget 'huge'"):
        suite.runs("huge")


def test_the_key_knows_neither_label_nor_suite_nor_budget(suite_file, tmp_path):
    runs = read_suite(str(suite_file)).runs("small")
    text = suite_file.read_text().replace('label = "bright', 'label = "sombre')
    # 'minute' starts from nothing, so it lacks the teacher, whose default is the same
    text = text.replace("[budget.small]", "[budget.minute]\nheld_out = 0.25")
    (tmp_path / "other.toml").write_text(text + "\n[budget.small]\niterations = 9\n")
    other = read_suite(str(tmp_path / "other.toml"))
    assert [r.key("f") for r in other.runs("minute")] == [r.key("f") for r in runs]
    assert other.runs("small")[0].key("f") != runs[0].key("f")


def test_the_key_holds_what_acts_and_only_that(suite_file):
    edited(
        suite_file,
        '[[row]]\nlabel = "later"',
        '[[row]]\nlabel = "a"\nmethod = "rd"\n'
        'settings = { noise = { strength = 0.3 }, image_cache_gib = 1.0, weights = "/x/y.pth" }\n'
        '[[row]]\nlabel = "b"\nmethod = "rd"\niterations_times = 10',
    )
    suite = read_suite(str(suite_file))
    (a,) = suite.runs("small", rows=["a"], sets=["skin"], seeds=[0])
    (b,) = suite.runs("small", rows=["b"], sets=["skin"], seeds=[0])
    (c,) = suite.runs("small", rows=["corner"], sets=["skin"], seeds=[0])
    key = a.key("print")
    assert (key["method"], key["data"], key["seed"]) == ("rd", "skin", 0)
    assert key["fingerprint"] == "print" and key["version"]
    assert key["settings"]["noise"]["strength"] == 0.3
    assert key["settings"]["noise"]["octaves"] == 6  # resolved in full
    assert key["settings"]["weights"] == "y.pth"
    assert a.config.weights == "/x/y.pth"
    assert not {"image_cache_gib", "seed", "objective"} & set(key["settings"])
    assert b.config.iterations == b.settings()["iterations"] == 30
    # a change of what a baseline does not look at is no reason to run it again
    assert "learning_rate" in key["settings"] and "learning_rate" not in c.settings()
    assert a.key("other") != key


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('method = "corner"', 'method = "magic"', ["row 'corner'", "method", "'magic'", "rd"]),
        ('pooling = "top"', 'pooling = "median"', ["row 'bright, top'", "pooling", "'median'"]),
        ('method = "corner"', 'method = "rd"\nsettings = { depth = 3 }', ["'corner'", "depth"]),
        ('method = "corner"', 'method = "rd"\nsettings = { image_size = 65 }', ["image size"]),
        ('method = "corner"', 'method = "rd"\nsettings = { noise = { hue = 1 } }', ["hue"]),
        (
            'method = "corner"',
            'method = "corner"\nsettings = { learning_rate = 0.1 }',
            ["row 'corner', settings", "'learning_rate'"],
        ),
        ('label = "later"', 'name = "later"', ["row 4", "'name'"]),
        ('label = "later"', 'label = "corner"', ["label corner more than once"]),
        ('label = "later"', "label = 3", ["row 4, label", "int"]),
        ("drawn = true", 'drawn = "yes"', ["row 1, drawn", "str"]),
        ("skin = 81.25", "knee = 81.25", ["reference", "'knee'"]),
        ("seeds = [0, 1]", "seeds = []", ["seeds"]),
        ("seeds = [0, 1]", "", ["no key 'seeds'"]),
        ('"roc"', '"pie"', ["figures", "'pie'"]),
        ('"roc"', '"curve"', ["curve"]),
        ("iterations = 3", 'iterations = "three"', ["iterations", "'three' is no int"]),
        ('title = "Tiny"', "title = Tiny", ["TOML", "line 2"]),
        ("costs = true", 'costs = true\nbase = "nobody"', ["base", "'nobody'"]),
        ("costs = true", "costs = true\neffects = true", ["effects", "base"]),
        ('method = "corner"', 'method = "corner"\nsplit = "odd"', ["split", "'odd'"]),
        ('method = "corner"', 'method = "rd"\nselect = "test"', ["uses_test_labels = true"]),
    ],
)
def test_what_is_wrong_is_named_with_file_and_place(suite_file, old, new, words):
    source = edited(suite_file, old, new)
    with pytest.raises(SuiteError) as e:
        read_suite(source)
    for word in (source, *words):
        assert word in str(e.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('label = "best on test"', 'label = "corner"', ["select", "its label must say"]),
        ('method = "rd"', 'method = "brightness"', ["select", "trains a student"]),
        ('pooling = "mean"', 'pooling = "areas"', ["pooling", "'areas'"]),
    ],
)
def test_only_a_suite_that_says_so_selects_by_test_labels(suite_file, old, new, words):
    text = suite_file.read_text().replace("costs = true", "costs = true\nuses_test_labels = true")
    text = text.replace('label = "corner"\nmethod = "corner"', SELECTED)
    text = text.replace('label = "corner"', 'label = "best on test"')
    suite_file.write_text(text)
    (run,) = read_suite(str(suite_file)).runs("small", methods=["rd"], sets=["skin"], seeds=[0])
    assert run.select == run.key("f")["select"] == "test"
    with pytest.raises(SuiteError) as e:
        read_suite(edited(suite_file, old, new))
    for word in words:
        assert word in str(e.value)


def test_no_bundled_suite_but_effects_selects_by_test_labels(real_methods):
    for name in bundled_suites():
        selecting = [row.label for row in read_suite(name).rows if row.select != "last"]
        assert selecting == (["best on test"] if name == "effects" else [])


def test_a_suite_that_is_not_there():
    with pytest.raises(
        SuiteError, match=r"nowhere\.toml: neither a file nor one of .*paper-table1"
    ):
        read_suite("nowhere.toml")


@pytest.fixture
def real_methods(monkeypatch, methods):
    monkeypatch.undo()
    return {*OBJECTIVES, *baselines.BASELINES}


def test_all_bundled_suites_expand(real_methods):
    assert set(bundled_suites()) == BUNDLED
    for name in bundled_suites():
        suite = read_suite(name)
        for budget in BUDGETS:
            runs = suite.runs(budget)
            assert len(runs) >= 18 and {r.config.seed for r in runs} == set(suite.seeds)
            assert {r.method for r in runs} <= real_methods
            sizes = {(r.config.image_size, r.config.batch_size) for r in runs}
            if name == "resolution":
                assert sizes == {(128, 16), (256, 16)}
            else:
                assert sizes == {(128, 16) if budget == "small" else (256, 16)}


def test_table1_has_every_row_of_the_paper(real_methods):
    rows = {row.label: row for row in read_suite("paper-table1").rows}
    absent = {label for label, row in rows.items() if row.method is None}
    assert not absent
    assert sum(bool(row.reference) for row in rows.values()) == 19
    assert {"rd", "scrd", "released", *baselines.BASELINES} == {
        r.method for r in rows.values() if r.method not in (None, "paper")
    }


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", [name for name in bundled_suites() if "paper" in name])
def test_suites_of_the_paper_train_as_printed_but_for_what_is_called_ours(
    real_methods, name, budget
):
    suite = read_suite(name)
    for row in suite.rows_of(budget):
        if row.method is None:
            continue
        config = suite.run(row, budget, suite.sets[0], 0).config
        steps = row.label.startswith(("+ ", "margin, "))  # of ours, in table 2
        if row.label.startswith("ours") or steps:
            assert row.preset is None and config.held_out != 0 and config.window == "image"
            continue
        assert row.preset is not None and (config.held_out, config.window) == (0, "data")
        changed = set(row.preset.changed(config)) - {"objective", "noise", "teacher"}
        if row.method not in OBJECTIVES:  # of which it has no learning rate
            continue
        assert changed <= ({"image_size", "iterations"} if budget != "paper" else set())
        assert config.schedule == "constant" and config.precision == "32-true"


def test_suites_share_runs(real_methods):
    def asked(name):
        return {str(r.asked()) for r in read_suite(name).runs("small")}

    assert asked("paper-table5") <= asked("paper-table1")
    assert asked("paper-figure4") <= asked("paper-table1")
    assert len(asked("paper-figure3") & asked("paper-table3")) == 9  # λ = 0.2 is the default


def test_figure3_varies_lambda(real_methods):
    strengths = {r.config.noise.strength for r in read_suite("paper-figure3").runs("small")}
    assert strengths == {0.1, 0.2, 0.3, 0.4, 0.5}


def test_ten_times_the_iterations(real_methods):
    iterations = [r.config.iterations for r in read_suite("objectives").runs("small")]
    assert sorted(set(iterations)) == [300, 3000]
    assert iterations.count(3000) == 3 * 3 * 6
    assert iterations.count(300) == 3 * 3 * 7  # `margin` at the budget alone
