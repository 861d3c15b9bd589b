"""Math-Verify's opinion, asked for in processes that can be killed."""

import importlib.util
import sys
import threading
import time

import pytest

from sft_dist.errors import EvaluationError
from sft_dist.grading import question_only_reward_fn
from sft_dist.grading.second import second_opinions

installed = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None, reason="Math-Verify is not installed"
)


@installed
def test_opinions_come_in_order_and_one_that_hangs_is_none():
    pairs = [
        (r"so \boxed{\frac{1}{2}}", "0.5"),
        (r"so \boxed{(1+\frac{1}{9})^{99999999}!}", "7"),
        (r"so \boxed{\frac{1}{3}}", "0.5"),
        ("no box at all", "0.5"),
        (r"so \boxed{3}", r"\boxed{3}"),
    ]
    start = time.monotonic()
    opinions = second_opinions(pairs, num_workers=1, timeout_seconds=3.0)
    assert opinions == [True, None, False, False, True]
    assert time.monotonic() - start < 60  # the deadline is kept; starting takes a while


@installed
def test_the_answer_of_the_other_form_is_the_one_in_the_tag():
    pairs = [("so</think> <answer>7</answer>", "7"), (r"so \boxed{7}", "7")]
    assert second_opinions(pairs, form="r1_zero", num_workers=1) == [True, False]


@installed
def test_a_slow_reward_can_be_asked_for_in_any_thread():
    rewards = []

    def ask():
        rewards.append(question_only_reward_fn(r"\boxed{3}", "4", fast=False)["reward"])

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert rewards == [0.0, 0.0]


def test_a_missing_second_grader_is_an_error_of_the_evaluation(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(EvaluationError, match="pip install"):
        second_opinions([(r"\boxed{3}", "4")])
