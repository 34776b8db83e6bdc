"""CSV files that grow row by row and appear whole."""

import pytest

from scrd.outputs.tables import Table


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_table_appears_with_its_last_row(tmp_path):
    path = tmp_path / "new" / "a.csv"
    with Table(path, ("x", "y")) as table:
        table.add(1, "a,b")
        assert not path.exists()
        table.add(0.1, "é\nf")
    assert table.count == 2
    assert path.read_bytes() == 'x,y\n1,"a,b"\n0.1,"é\nf"\n'.encode()
    assert files(path.parent) == ["a.csv"]


def test_rows_do_not_wait_in_memory(tmp_path):
    with Table(tmp_path / "a.csv", ("x",)) as table:
        for _ in range(10):
            table.add("y" * 10_000)
        (growing,) = tmp_path.iterdir()
        assert growing.stat().st_size > 50_000


def test_an_interruption_leaves_the_older_table(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("older")
    with pytest.raises(KeyboardInterrupt), Table(path, ("x",)) as table:
        table.add(1)
        raise KeyboardInterrupt
    assert path.read_text() == "older"
    assert (tmp_path / "a.partial.csv").read_text() == "x\n1\n"
    assert files(tmp_path) == ["a.csv", "a.partial.csv"]


def test_room_set_aside_leaves_no_trace(tmp_path):
    with Table(tmp_path / "a.csv", ("x",), room=10_000) as table:
        table.add("\udce4")
    with Table(tmp_path / "b.csv", ("x",), room=10_000):
        pass
    assert (tmp_path / "a.csv").read_bytes() == b"x\n\xe4\n"
    assert files(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("keep_empty", [False, True])
def test_a_table_without_rows(tmp_path, keep_empty):
    path = tmp_path / "a.csv"
    path.write_text("older")
    with Table(path, ("x", "y"), keep_empty=keep_empty):
        pass
    assert files(tmp_path) == ["a.csv"] * keep_empty
    assert not keep_empty or path.read_text() == "x,y\n"
