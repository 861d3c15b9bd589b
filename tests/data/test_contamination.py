"""What counts as leaked, what does not, and from how much on a run is refused."""

import logging
import random
import time

import pytest

from sft_dist.data.contamination import find_overlaps, refuse_contamination, words
from sft_dist.errors import ConfigError

LETTERS = "abcdefghijkl"
VOCABULARY = [f"{a}{b}{c}{d}" for a in LETTERS for b in LETTERS for c in LETTERS for d in "xy"]


@pytest.fixture
def make(math_example):
    """Makes `count` examples of `length` words each; the same seed, the same problems."""

    def examples(count, *, seed, prefix, length=40):
        choose = random.Random(seed)
        return [
            math_example(
                i, id=f"{prefix}/{i}", problem=" ".join(choose.choices(VOCABULARY, k=length))
            )
            for i in range(count)
        ]

    return examples


def test_typesetting_makes_no_other_problem_and_a_sign_does(math_example):
    train = [math_example(id="t", problem=r"Compute  $\cos (150^\circ)$.")]
    same = math_example(id="a", problem="Compute\n$$\\cos(150^\\circ)$$")
    other = math_example(id="b", problem=r"Compute $\cos (-150^\circ)$.")
    (found,) = find_overlaps(train, [same, other])
    assert (found.evaluation_id, found.train_id, found.is_exact) == ("a", "t", True)


def test_words_are_words_numbers_and_signs():
    assert words("Let $x_1 = -2.5$, É?") == ["let", "x", "_", "1", "=", "-", "2", "5", "é", "?"]


def test_a_problem_mostly_made_of_a_training_problem_is_near(make, math_example):
    train = make(20, seed=1, prefix="train")
    text = train[7].problem.split()
    changed = math_example(id="near", problem=" ".join([*text[:34], "how", "many", "apples"]))
    cut_up = math_example(
        id="far", problem=" apples ".join(" ".join(text[i : i + 12]) for i in (0, 12, 24))
    )
    (found,) = find_overlaps(train, [changed, cut_up])
    assert (found.evaluation_id, found.train_id, found.is_exact) == ("near", "train/7", False)
    assert found.share == pytest.approx(34 / 37)


def test_an_example_of_the_training_data_is_named_once_however_often_it_occurs(make):
    train = make(3, seed=1, prefix="train")
    (found,) = find_overlaps([*train, *train], train[1:2])
    assert (found.evaluation_id, found.train_id) == ("train/1", "train/1")


def test_a_leaked_split_is_refused_with_count_and_examples(make):
    test = make(100, seed=2, prefix="test")
    train = [*make(300, seed=1, prefix="train"), *test[:90]]
    with pytest.raises(ConfigError) as caught:
        refuse_contamination(train, test, allow=False)
    (fault,) = caught.value.faults
    for part in ("90 (90.0%)", "test/0 = test/0", "--allow_contamination", "--eval_data_path"):
        assert part in fault


def test_a_leak_may_be_allowed_and_is_told(make, caplog):
    test = make(10, seed=2, prefix="test")
    refuse_contamination(test, test, allow=True)
    assert "10 (100.0%)" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_one_exact_problem_in_a_hundred_passes_and_two_do_not(make, caplog):
    test, train = make(100, seed=2, prefix="test"), make(50, seed=1, prefix="train")
    with caplog.at_level(logging.INFO):
        refuse_contamination([*train, test[0]], test, allow=False)
    assert "1 (1.0%)" in caplog.text
    with pytest.raises(ConfigError):
        refuse_contamination([*train, *test[:2]], test, allow=False)


def test_a_template_with_other_numbers_is_another_problem(make, math_example):
    text = make(1, seed=1, prefix="train")[0].problem
    train = [math_example(id="t", problem=f"{text} 12 apples and 30 pears")]
    other = math_example(id="o", problem=f"{text} 12 apples and 31 pears")
    same = math_example(id="s", problem=f"{text} 30 pears and 12 apples")
    assert [found.evaluation_id for found in find_overlaps(train, [other, same])] == ["s"]


def test_near_problems_pass_up_to_one_in_twenty(make, math_example):
    train = make(100, seed=1, prefix="train")

    def reworded(count, total):
        near = [
            math_example(id=f"n{i}", problem=train[i].problem + " apples") for i in range(count)
        ]
        return [*near, *make(total - count, seed=2, prefix="test")]

    refuse_contamination(train, reworded(10, 200), allow=False)
    refuse_contamination(train, reworded(5, 12), allow=False)  # chance, in a sample of 12
    with pytest.raises(ConfigError, match=r"11 \(5\.5%\) nearly"):
        refuse_contamination(train, reworded(11, 200), allow=False)


def test_nothing_in_common_and_nothing_to_evaluate_pass(make):
    train = make(10, seed=1, prefix="train")
    refuse_contamination(train, make(10, seed=2, prefix="test"), allow=False)
    refuse_contamination(train, [], allow=False)


def test_the_size_of_math_takes_seconds(make):
    train = make(7500, seed=1, prefix="train", length=70)
    test = make(5000, seed=2, prefix="test", length=70)
    began = time.process_time()
    assert find_overlaps(train, test) == []
    assert time.process_time() - began < 8  # about 1 on an idle core
