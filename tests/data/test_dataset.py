"""--data_path, --eval_data_path, --holdout: what is trained on and what is evaluated."""

import json
import logging

import pytest

from sft_dist.config import DataConfig
from sft_dist.data.dataset import load_evaluation_problems, load_problems
from sft_dist.errors import DataError


def write_rows(path, count, name):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for i in range(count):
            row = {
                "problem": f"{name} {i}?", "solution": f"\\boxed{{{i}}}",
                "type": ("Algebra", "Geometry")[i % 2], "level": f"Level {i % 3 + 1}",
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")
    return str(path)


@pytest.fixture
def both(tmp_path):
    write_rows(tmp_path / "math" / "train.jsonl", 30, "train")
    write_rows(tmp_path / "math" / "test.jsonl", 12, "test")
    return str(tmp_path / "math")


@pytest.fixture
def train_only(tmp_path):
    write_rows(tmp_path / "alone" / "train.jsonl", 30, "train")
    return str(tmp_path / "alone")


def load(data_path, *, evaluate=True, max_eval_samples=0, **settings):
    config = DataConfig(data_path=data_path, **settings)
    return load_problems(config, evaluate=evaluate, max_eval_samples=max_eval_samples)


def asked(examples):
    return {e.problem for e in examples}


def test_the_test_split_is_evaluated_and_the_train_split_trained_on(both):
    problems = load(both)
    assert asked(problems.train) == {f"train {i}?" for i in range(30)}
    assert asked(problems.evaluation) == {f"test {i}?" for i in range(12)}


def test_a_sample_of_the_test_split_is_evaluated(both):
    sample = load(both, max_eval_samples=6).evaluation
    assert len(sample) == 6
    assert sorted({(e.subject, e.level) for e in sample}) == [
        (s, lv) for s in ("Algebra", "Geometry") for lv in (1, 2, 3)
    ]
    assert sample == load_evaluation_problems(DataConfig(data_path=both), 6)


def test_eval_data_path_takes_the_place_of_the_test_split(both, tmp_path):
    other = write_rows(tmp_path / "other.jsonl", 5, "other")
    problems = load(both, eval_data_path=other)
    assert asked(problems.evaluation) == {f"other {i}?" for i in range(5)}
    assert len(problems.train) == 30


def test_a_hold_out_is_taken_from_the_training_split(train_only):
    problems = load(train_only, holdout=10)
    assert (len(problems.train), len(problems.evaluation)) == (20, 10)
    assert not asked(problems.train) & asked(problems.evaluation)


def test_a_sample_of_the_hold_out_leaves_the_rest_of_it_untrained_too(train_only):
    problems = load(train_only, holdout=10, max_eval_samples=4)
    assert (len(problems.train), len(problems.evaluation)) == (20, 4)
    assert asked(load(train_only, holdout=10).train) == asked(problems.train)


def test_an_evaluation_alone_asks_what_a_run_with_the_same_hold_out_asks(train_only):
    held = load_evaluation_problems(DataConfig(data_path=train_only, holdout=10), 0)
    assert held == load(train_only, holdout=10, max_eval_samples=0).evaluation


@pytest.mark.parametrize("count", [30, 31])
def test_a_hold_out_that_leaves_nothing_to_train_on_is_an_error(train_only, count):
    with pytest.raises(DataError, match=f"--holdout {count}: there are only 30"):
        load(train_only, holdout=count)


def test_no_test_split_is_an_error_that_names_the_ways_out(train_only):
    with pytest.raises(DataError) as caught:
        load(train_only)
    for way in (train_only, "--eval_data_path", "--holdout", "--eval_placement off"):
        assert way in str(caught.value)


def test_without_evaluation_no_test_split_is_needed(train_only):
    problems = load(train_only, evaluate=False)
    assert (len(problems.train), problems.evaluation) == (30, [])


def test_what_is_held_out_is_not_trained_on_either_when_it_is_scored_later(train_only):
    problems = load(train_only, evaluate=False, holdout=10)
    evaluated = load(train_only, evaluate=True, holdout=10)
    assert (len(problems.train), problems.evaluation) == (20, [])
    assert problems.train == evaluated.train


def test_missing_data_names_the_path(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        load(str(tmp_path / "nowhere"))


def test_skipped_records_are_told_with_their_place(train_only, tmp_path, caplog):
    with (tmp_path / "alone" / "train.jsonl").open("a") as file:
        file.write('{"problem": "no solution"}\n')
    with caplog.at_level(logging.INFO):
        problems = load(train_only, evaluate=False)
    assert len(problems.train) == 30
    assert "train.jsonl:31" in caplog.text
    assert "read 30 problems" in caplog.text
