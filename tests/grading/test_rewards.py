"""The reward functions keep the contract of the field's course code."""

import sys

import pytest

from sft_dist.grading import question_only_reward_fn, r1_zero_reward_fn, second

NOTHING = {"format_reward": 0.0, "answer_reward": 0.0, "reward": 0.0}
FORMAT_ONLY = {"format_reward": 1.0, "answer_reward": 0.0, "reward": 0.0}
ALL = {"format_reward": 1.0, "answer_reward": 1.0, "reward": 1.0}


@pytest.mark.parametrize(
    ("response", "truth", "expected"),
    [
        (r"so \boxed{\frac12}", "0.5", ALL),
        (r"so \boxed{3}", "0.5", FORMAT_ONLY),
        ("so 0.5", "0.5", NOTHING),
        (r"so \boxed{0.5", "0.5", NOTHING),
        (r"so \boxed{}", "0.5", FORMAT_ONLY),
        (r"\boxed{7}", 7, ALL),
        (r"\boxed{\frac{1}{4}}", 0.25, ALL),
        (r"\boxed{10^{-7}}", 1e-7, ALL),
        (r"\boxed{7}", ["6", "7"], ALL),
        (r"\boxed{8}", ["6", "7"], FORMAT_ONLY),
        (r"\boxed{7}", r"\boxed{7}", ALL),
    ],
)
def test_question_only_scores_the_last_box(response, truth, expected):
    assert question_only_reward_fn(response, truth) == expected


@pytest.mark.parametrize(
    ("response", "strict", "expected"),
    [
        ("a</think> <answer>7</answer>", False, ALL),
        ("a</think>\n<answer>7</answer>", False, ALL),
        ("a</think>\n<answer>7</answer>", True, NOTHING),
        ("a</think> <answer>7</answer>", True, ALL),
        (r"a</think> <answer>so \boxed{7}</answer>", False, ALL),
        (r"a</think> <answer>so \boxed{8}</answer>", False, FORMAT_ONLY),
        (r"a</think> <answer>so \boxed{7</answer>", False, FORMAT_ONLY),
        (r"\boxed{7}", False, NOTHING),
    ],
)
def test_r1_zero_scores_the_answer_tag(response, strict, expected):
    assert r1_zero_reward_fn(response, "7", strict_format=strict) == expected


def test_a_second_grader_is_asked_only_when_told_so_and_only_about_refusals(monkeypatch):
    asked = []
    monkeypatch.setattr(second, "second_opinion", lambda *pair: asked.append(pair) or True)
    assert question_only_reward_fn(r"\boxed{3}", "4") == FORMAT_ONLY
    assert question_only_reward_fn(r"\boxed{4}", "4", fast=False) == ALL
    assert question_only_reward_fn(r"no box", "4", fast=False) == NOTHING
    assert asked == []
    assert question_only_reward_fn(r"\boxed{3}", "4", fast=False) == ALL
    assert asked == [("3", "4")]


@pytest.mark.parametrize("opinion", [False, None])
def test_a_second_grader_that_refuses_or_gives_up_changes_nothing(monkeypatch, opinion):
    monkeypatch.setattr(second, "second_opinion", lambda *pair: opinion)
    assert question_only_reward_fn(r"\boxed{3}", "4", fast=False) == FORMAT_ONLY


def test_a_missing_second_grader_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    monkeypatch.setattr(second, "_KEPT", second._KeptPool())
    with pytest.raises(ImportError, match="pip install"):
        question_only_reward_fn(r"\boxed{3}", "4", fast=False)
