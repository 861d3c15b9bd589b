"""The evaluated sample: in proportion to subject and level, the same in every run."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft_dist.data.records import MathExample
from sft_dist.data.selection import hold_out, stratified_sample


def example(index, subject="Algebra", level=1):
    return MathExample(f"test/{index}", "?", "!", "1", subject, level)


def mixed(sizes):
    """Examples of the strata in turn, so that none of them lies in one stretch."""
    strata = [(s, lv) for s, row in sizes.items() for lv, n in row.items() for _ in range(n)]
    strata = strata[::3] + strata[1::3] + strata[2::3]
    return [example(i, subject, level) for i, (subject, level) in enumerate(strata)]


MATH_LIKE = mixed(
    {
        "Algebra": {1: 135, 3: 261, 5: 307},
        "Geometry": {1: 38, 2: 82, 5: 132},
        "Precalculus": {None: 2, 4: 100, 5: 143},
    }
)


def counts(examples):
    return Counter((e.subject, e.level) for e in examples)


@pytest.mark.parametrize("size", [1, 16, 100, 500, 1199])
def test_every_stratum_has_its_share_to_within_one_example(size):
    sample = stratified_sample(MATH_LIKE, size)
    assert len(sample) == size
    found = counts(sample)
    for stratum, members in counts(MATH_LIKE).items():
        assert abs(found[stratum] - size * members / len(MATH_LIKE)) < 1, stratum


def test_a_share_that_is_whole_is_met_exactly():
    examples = mixed({"a": {1: 30, 2: 10}, "b": {1: 60}})
    assert counts(stratified_sample(examples, 10)) == {("a", 1): 3, ("a", 2): 1, ("b", 1): 6}


def test_open_places_go_to_the_largest_remainders():
    examples = mixed({"a": {1: 5}, "b": {1: 6}, "c": {1: 9}})  # 2.0, 2.4, 3.6 of 8
    found = counts(stratified_sample(examples, 8))
    assert found == {("a", 1): 2, ("b", 1): 2, ("c", 1): 4}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([1, 2, None])), max_size=40),
       st.integers(0, 50))  # fmt: skip
def test_the_sample_has_the_size_asked_for_no_example_twice_and_the_old_order(strata, size):
    examples = [example(i, *stratum) for i, stratum in enumerate(strata)]
    indices = [int(e.id.split("/")[1]) for e in stratified_sample(examples, size)]
    assert len(indices) == (min(size, len(examples)) or len(examples))
    assert indices == sorted(set(indices))


@pytest.mark.parametrize("size", [0, 1200, 5000])
def test_0_and_more_than_there_are_take_all(size):
    assert stratified_sample(MATH_LIKE, size) == MATH_LIKE


def test_the_sample_is_the_same_at_every_call():
    assert stratified_sample(MATH_LIKE, 100) == stratified_sample(list(MATH_LIKE), 100)


def test_the_sample_is_drawn_from_all_over_a_stratum():
    examples = [example(i) for i in range(1000)]
    drawn = [int(e.id.split("/")[1]) for e in stratified_sample(examples, 100)]
    assert 400 < sum(drawn) / len(drawn) < 600
    assert drawn != list(range(100))


def test_what_is_held_out_is_not_trained_on_and_nothing_is_lost():
    left, held = hold_out(MATH_LIKE, 120)
    assert len(held) == 120
    assert not {e.id for e in left} & {e.id for e in held}
    assert sorted(e.id for e in left + held) == sorted(e.id for e in MATH_LIKE)


def test_what_is_held_out_is_stratified_and_both_parts_keep_their_order():
    left, held = hold_out(MATH_LIKE, 120)
    for stratum, members in counts(MATH_LIKE).items():
        assert abs(counts(held)[stratum] - members / 10) < 1, stratum
    order = {e.id: i for i, e in enumerate(MATH_LIKE)}
    for part in (left, held):
        assert [order[e.id] for e in part] == sorted(order[e.id] for e in part)
