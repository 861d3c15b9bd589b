import random

import pytest

from sft_dist.reporting.comparison import compare, difference_interval


def test_gained_and_lost_are_named_and_the_rest_counted():
    earlier = {1: 0.0, 2: 1.0, 3: 1.0, 4: 0.0, 5: 0.0}
    later = {1: 1.0, 2: 0.0, 3: 1.0, 4: 0.0, 6: 1.0}
    found = compare(earlier, later)
    assert (found.gained, found.lost) == ([1], [2])
    assert (found.num_problems, found.right_in_both, found.right_in_neither) == (4, 1, 1)
    assert found.difference == 0.0
    assert found.p_value == 1.0


def test_without_a_common_problem_there_is_nothing_to_compare():
    assert compare({1: 1.0}, {2: 1.0}) is None


def test_the_interval_is_the_one_worked_out_by_hand():
    """12 gained, 4 lost of 100: (12.5 - 4.5)/102 +- 1.96 sqrt(17 - 64/102)/102."""
    changes = [1.0] * 12 + [-1.0] * 4 + [0.0] * 84
    low, high = difference_interval(changes)
    assert (low + high) / 2 == pytest.approx(8 / 102)
    assert high - low == pytest.approx(2 * 1.959964 * (17 - 64 / 102) ** 0.5 / 102, rel=1e-6)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    draw = random.Random(0)
    held = 0
    for _ in range(1000):
        changes = draw.choices([1.0, -1.0, 0.0], weights=[0.2, 0.1, 0.7], k=80)
        low, high = difference_interval(changes)
        held += low <= 0.1 <= high
    assert 0.93 <= held / 1000 <= 0.98


def test_the_interval_has_a_width_where_nothing_changed():
    low, high = difference_interval([0.0] * 50)
    assert low < 0 < high
