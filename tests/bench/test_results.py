"""The results file: append-only, and robust to interruptions."""

import json
import multiprocessing

import pytest
from filelock import Timeout

from scrd.bench.results import ResultsError, append_result, canonical, read_results, run_lock


def line(i):
    return {"key": {"seed": i}, "metrics": {"auroc": i / 7}}


def test_what_is_appended_is_read_again(tmp_path):
    path = tmp_path / "new" / "r.jsonl"
    assert read_results(path) == ([], [])
    for i in range(3):
        append_result(path, line(i))
    assert read_results(path) == ([line(0), line(1), line(2)], [])
    assert path.read_bytes().count(b"\n") == 3


def test_a_damaged_last_line_is_named_and_the_next_run_begins_a_line(tmp_path):
    path = tmp_path / "r.jsonl"
    append_result(path, line(0))
    append_result(path, line(1))
    path.write_bytes(path.read_bytes()[:-9])
    lines, damaged = read_results(path)
    assert lines == [line(0)]
    assert len(damaged) == 1 and f"{path}: line 2 is damaged" in damaged[0]
    append_result(path, line(2))
    assert read_results(path) == ([line(0), line(2)], damaged)


def test_an_interrupted_first_line_is_no_end(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"key": {"se')
    assert len(read_results(path).damaged) == 1
    append_result(path, line(0))
    assert read_results(path).lines == [line(0)]


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("milk\nbread\n")
    with pytest.raises(ResultsError, match=r"notes\.txt: not a results file"):
        read_results(path)
    with pytest.raises(ResultsError, match="cannot be read"):
        read_results(tmp_path)


def test_nothing_that_is_not_json_gets_in(tmp_path):
    with pytest.raises(ValueError):
        append_result(tmp_path / "r.jsonl", {"key": {}, "x": float("nan")})
    assert not (tmp_path / "r.jsonl").exists()


def _write(path, start):
    for i in range(start, start + 50):
        append_result(path, {**line(i), "filler": "x" * 5000})


def test_processes_append_side_by_side(tmp_path):
    path = tmp_path / "r.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write, args=(path, 50 * n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines, damaged = read_results(path)
    assert not damaged
    assert sorted(x["key"]["seed"] for x in lines) == list(range(150))


def test_locks_are_by_run(tmp_path):
    path = tmp_path / "r.jsonl"
    with run_lock(path, {"a": 1, "b": 2}):
        with pytest.raises(Timeout):
            run_lock(path, {"b": 2, "a": 1}).acquire(timeout=0)
        with run_lock(path, {"a": 1, "b": 3}).acquire(timeout=0):
            pass
    with run_lock(path, {"a": 1, "b": 2}).acquire(timeout=0):
        pass


def test_the_spelling_of_a_key_does_not_depend_on_its_order():
    assert canonical({"a": 1, "b": {"c": 2, "d": 3}}) == canonical(
        json.loads('{"b": {"d": 3, "c": 2}, "a": 1}')
    )


def test_a_line_older_than_a_setting_means_what_held_then(tmp_path):
    path = tmp_path / "r.jsonl"
    key = {"method": "rd", "settings": {"image_size": 128}, "data": "a", "seed": 0}
    append_result(path, {"key": key})
    append_result(path, {"key": {**key, "settings": {"promise": "image"}}})
    old, new = read_results(path).lines
    assert old["key"]["settings"] == {"image_size": 128, "promise": "group"}
    assert new["key"]["settings"] == {"promise": "image"}
