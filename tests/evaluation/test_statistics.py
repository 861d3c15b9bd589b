"""Figures against values worked out by hand, by enumeration, or printed in a table."""

import itertools
import math

import pytest

from sft_dist.evaluation.statistics import (
    mcnemar_p,
    pass_at_k,
    reported_ks,
    standard_error,
    wilson_interval,
)


def test_the_standard_error_of_single_answers_is_the_binomial_one():
    assert standard_error([1.0] * 3 + [0.0] * 7) == pytest.approx(math.sqrt(0.3 * 0.7 / 10))
    assert standard_error([]) is None


def test_answers_to_one_problem_count_as_one_cluster():
    """Ten copies of an answer say no more than the answer."""
    assert standard_error([1.0, 0.0]) == pytest.approx(math.sqrt(0.25 / 2))
    assert standard_error([0.5, 0.5]) == 0.0


def test_the_wilson_interval_of_textbook_cases():
    # Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3.
    low, high = wilson_interval(81 / 263, 263)
    assert (low, high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    low, high = wilson_interval(0.0, 20)
    assert (low, high) == (0.0, pytest.approx(0.1611, abs=5e-5))
    low, high = wilson_interval(1 / 29, 29)
    assert (low, high) == (pytest.approx(0.0061, abs=5e-5), pytest.approx(0.1718, abs=5e-5))


def test_the_interval_stays_within_0_and_1_exactly():
    for count in range(1, 60):
        assert wilson_interval(0.0, count)[0] == 0.0
        assert wilson_interval(1.0, count)[1] == 1.0
        for right in range(count + 1):
            low, high = wilson_interval(right / count, count)
            assert 0.0 <= low <= right / count <= high <= 1.0


def test_a_perfect_score_still_has_an_interval():
    low, high = wilson_interval(1.0, 20)
    assert low == pytest.approx(1 - 0.1611, abs=5e-5)
    assert high == 1.0


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 1), (3, 3), (2, 9)])
def test_the_exact_test_counts_every_way_the_coins_may_fall(gained, lost):
    changed = gained + lost
    extreme = abs(gained - lost)
    ways = [abs(2 * sum(coins) - changed) for coins in itertools.product((0, 1), repeat=changed)]
    expected = sum(way >= extreme for way in ways) / len(ways)
    assert mcnemar_p(gained, lost) == pytest.approx(expected)


def test_the_exact_test_does_not_overflow_on_a_whole_test_set():
    assert 0.0 < mcnemar_p(2600, 2400) < 0.01
    assert mcnemar_p(5000, 0) >= 0.0


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 4), (6, 6, 2), (4, 1, 4)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n, c, k):
    answers = [True] * c + [False] * (n - c)
    subsets = list(itertools.combinations(answers, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_more_than_was_sampled_is_refused():
    with pytest.raises(ValueError, match="found k = 5"):
        pass_at_k(4, 1, 5)


def test_powers_of_two_and_all_samples_are_reported():
    assert reported_ks(1) == [1]
    assert reported_ks(8) == [1, 2, 4, 8]
    assert reported_ks(10) == [1, 2, 4, 8, 10]
