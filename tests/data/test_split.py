import numpy as np
import pytest

from scrd.data.split import split_by_group


def test_parts_are_whole_groups_and_cover_everything() -> None:
    rng = np.random.default_rng(0)
    for seed in range(50):
        sizes = rng.integers(1, 9, 30)
        groups = [f"p{number}" for number, size in enumerate(sizes) for _ in range(size)]
        groups = [groups[place] for place in rng.permutation(len(groups))]
        fractions = (0.7, 0.2, 0.1)
        parts = split_by_group(groups, fractions, seed)
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
        names = [{groups[index] for index in part} for part in parts]
        assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
        for part, fraction in zip(parts, fractions, strict=True):
            assert abs(len(part) - fraction * len(groups)) <= 8  # half a group at either cut
            assert (np.diff(part) > 0).all()
            assert part.dtype == np.int64


def test_images_without_a_group_are_split_exactly() -> None:
    fit, held = split_by_group([None] * 100, (0.8, 0.2), seed=3)
    assert (len(fit), len(held)) == (80, 20)
    assert held.tolist() != list(range(80, 100))


def test_the_seed_decides_and_the_order_of_the_images_does_not() -> None:
    groups = [f"p{number // 3}" for number in range(90)]
    held = split_by_group(groups, (0.8, 0.2), seed=1)[1]
    assert held.tolist() == split_by_group(groups, (0.8, 0.2), seed=1)[1].tolist()
    assert held.tolist() != split_by_group(groups, (0.8, 0.2), seed=2)[1].tolist()
    order = np.random.default_rng(0).permutation(90)
    shuffled = [groups[place] for place in order]
    held_shuffled = split_by_group(shuffled, (0.8, 0.2), seed=1)[1]
    assert {groups[i] for i in held} == {shuffled[i] for i in held_shuffled}


def test_large_groups_are_not_kept_out_of_the_small_part() -> None:
    # one group of 20 among 40 of 2: a fifth of the images should hold it about every fifth time
    groups = ["large"] * 20 + [f"p{number // 2}" for number in range(80)]
    held_it = sum(0 in split_by_group(groups, (0.8, 0.2), seed)[1] for seed in range(300))
    assert 0.1 < held_it / 300 < 0.35


def test_no_part_with_a_share_is_empty() -> None:
    groups = ["a"] * 97 + ["b", "c", "d"]
    for seed in range(20):
        parts = split_by_group(groups, (0.001, 0.0, 0.998, 0.001), seed)
        assert [len(part) > 0 for part in parts] == [True, False, True, True]


def test_too_few_groups_and_wrong_fractions_are_refused() -> None:
    with pytest.raises(ValueError, match="6 images in 1 groups cannot be split into 2 parts"):
        split_by_group(["a"] * 6, (0.5, 0.5), seed=0)
    with pytest.raises(ValueError, match="0 images in 0 groups"):
        split_by_group([], (0.5, 0.5), seed=0)
    for fractions in ((0.5, 0.4), (1.5, -0.5)):
        with pytest.raises(ValueError, match="sum to 1"):
            split_by_group(["a", "b"], fractions, seed=0)


def test_one_patient_for_all_is_told_as_the_cause() -> None:
    with pytest.raises(ValueError, match=r"all 8 images carry one patient .* column 'patient'"):
        split_by_group(["p"] * 8, (0.75, 0.25), seed=0)


def test_a_part_may_ask_for_a_least_number_of_groups() -> None:
    groups = [f"p{number}" for number, size in enumerate([40, 30, 9, 8, 7, 6]) for _ in range(size)]
    for seed in range(20):
        free = split_by_group(groups, (0.75, 0.25), seed)
        least = split_by_group(groups, (0.75, 0.25), seed, least=(1, 3))
        found = [len({groups[i] for i in part[1]}) for part in (free, least)]
        assert found[1] == max(found[0], 3)
        # the same order of the groups, cut elsewhere
        assert set(free[1]) <= set(least[1])
    with pytest.raises(ValueError, match=r"2 parts of at least \[4, 3\] groups without"):
        split_by_group(groups, (0.75, 0.25), seed=0, least=(4, 3))
