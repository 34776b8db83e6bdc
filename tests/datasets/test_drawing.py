from collections import Counter
from pathlib import Path

import pytest

from scrd.datasets.drawing import Candidate, Part, check_supply, draw
from scrd.datasets.published import SourceError

PARTS = (Part("train", ("a",), 0, 50), Part("test", ("a",), 0, 30), Part("test", ("b",), 1, 20))


def candidates_in_groups(sizes: dict[str, int]) -> tuple[list[Candidate], list[str]]:
    """Images of class "a", or of class "b" where the group's name starts with it."""
    candidates, units = [], []
    for unit, size in sizes.items():
        for k in range(size):
            candidates.append(Candidate(Path(f"{unit}-{k}"), "b" if unit[0] == "b" else "a"))
            units.append(unit)
    return candidates, units


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_exact_and_no_unit_is_in_both_splits(seed: int) -> None:
    sizes = {f"a{k}": 1 + k % 5 for k in range(60)} | {f"b{k}": 1 + k % 3 for k in range(30)}
    candidates, units = candidates_in_groups(sizes)
    chosen = draw(candidates, range(len(units)), units, PARTS, seed)
    assert [len(part) for part in chosen] == [50, 30, 20]
    assert len(set().union(*chosen)) == 100
    for part, members in zip(PARTS, chosen, strict=True):
        assert {candidates[k].kind for k in members} == set(part.kinds)
    train, test = ({units[k] for k in ks} for ks in (chosen[0], chosen[1] + chosen[2]))
    assert not train & test


def test_the_draw_depends_on_the_seed_alone() -> None:
    candidates, units = candidates_in_groups({f"a{k}": 1 for k in range(90)} | {"b": 20})
    first, again, other = (
        draw(candidates, range(len(units)), units, PARTS, seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_unit_of_both_classes_is_for_testing() -> None:
    candidates = [Candidate(Path("1"), "a"), Candidate(Path("2"), "b"), Candidate(Path("3"), "a")]
    parts = (Part("train", ("a",), 0, 2), Part("test", ("b",), 1, 1))
    assert draw(candidates, range(3), ["u", "u", "v"], parts, seed=0) == [[2], [1]]


def test_one_more_unit_changes_one_image_at_most() -> None:
    candidates, units = candidates_in_groups({f"a{k}": 1 for k in range(90)})
    part = (Part("test", ("a",), 0, 30),)
    (with_all,) = draw(candidates, range(90), units, part, seed=0)
    (without,) = draw(candidates, set(range(90)) - {with_all[0]}, units, part, seed=0)
    assert len(set(with_all) - set(without)) == 1


def test_a_unit_is_cut_only_where_no_other_fits() -> None:
    candidates, units = candidates_in_groups({"a1": 7, "a2": 4, "a3": 5})
    (chosen,) = draw(candidates, range(16), units, (Part("test", ("a",), 0, 3),), seed=0)
    assert Counter(units[k] for k in chosen) == {"a2": 3}
    candidates, units = candidates_in_groups({"a1": 7, "a2": 2, "a3": 1})
    (chosen,) = draw(candidates, range(10), units, (Part("test", ("a",), 0, 3),), seed=0)
    assert Counter(units[k] for k in chosen) == {"a2": 2, "a3": 1}


def test_splits_of_the_source_are_kept() -> None:
    candidates = [Candidate(Path(str(k)), "a", split) for k, split in enumerate(["train", "test"])]
    parts = (Part("train", ("a",), 0, 1), Part("test", ("a",), 0, 1))
    assert draw(candidates, range(2), ["u", "v"], parts, seed=0) == [[0], [1]]
    # what shares a unit with the official test split is lost for training
    assert draw(candidates, range(2), ["u", "u"], parts, seed=0) == [[], [1]]


def test_too_few_images_are_refused_with_the_number_found() -> None:
    candidates, _ = candidates_in_groups({"a": 79, "b": 20})
    with pytest.raises(SourceError, match=r"79 images of a for train and test, 80 are needed"):
        check_supply(Path("source"), candidates, PARTS)
    candidates, _ = candidates_in_groups({"a": 80, "b": 19})
    with pytest.raises(SourceError, match=r"19 images of b for test, 20 are needed"):
        check_supply(Path("source"), candidates, PARTS)
    candidates, _ = candidates_in_groups({"a": 80, "b": 20})
    check_supply(Path("source"), candidates, PARTS)
