from collections import Counter

import pytest
from sklearn.model_selection import StratifiedShuffleSplit

from lightning_heads.data.samples.stratified_split import stratified_split


def test_parts_are_disjoint_complete_and_stratified_like_scikit_learns() -> None:
    keys = ["a"] * 100 + ["b"] * 40 + ["c"] * 12
    parts = stratified_split(keys, [0.25, 0.1], seed=1)
    assert sorted(i for part in parts for i in part) == list(range(len(keys)))
    splitter = StratifiedShuffleSplit(1, test_size=38, random_state=0)
    _, reference = next(splitter.split(keys, keys))
    expected = Counter(keys[i] for i in reference)
    got = Counter(keys[i] for i in parts[1])
    assert all(abs(got[key] - expected[key]) <= 1 for key in "abc")


def test_split_depends_on_the_seed() -> None:
    keys = "ab" * 50
    assert stratified_split(keys, [0.2], 3) == stratified_split(keys, [0.2], 3)
    assert stratified_split(keys, [0.2], 3) != stratified_split(keys, [0.2], 4)


def test_last_sample_of_a_key_remains() -> None:
    rest, part = stratified_split("aab", [0.9], 0)
    assert {"aab"[i] for i in rest} == {"a", "b"}
    assert len(part) == 1


@pytest.mark.parametrize("fractions", [[1.0], [-0.1], [0.6, 0.5]])
def test_impossible_fractions_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="sum to less than 1"):
        stratified_split("ab", fractions, 0)


def test_fractions_of_small_keys_add_up() -> None:
    rest, part = stratified_split([i // 2 for i in range(60)], [0.2], 0)
    assert len(part) == 12
    assert len({i // 2 for i in part}) == 12
    assert len(rest) == 48


def test_empty_part_is_refused() -> None:
    with pytest.raises(ValueError, match="a sample at least, but of 3 it holds out none"):
        stratified_split("abc", [0.2], 0)
