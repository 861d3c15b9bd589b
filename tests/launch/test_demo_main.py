"""The demo's command: what it runs, what it removes, what it reports."""

import json
import subprocess
from pathlib import Path

import pytest

from launch.demo import __main__ as demo
from launch.demo.problems import make_problems


@pytest.mark.parametrize(("has_gpu", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_every_flag_of_the_training_command_is_one_of_the_product(
    tmp_path, monkeypatch, has_gpu, dtype
):
    from sft_dist.arguments import parse_train_config

    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    command = demo.training_command(tmp_path, seed=3, num_processes=2)
    flags = command[command.index("sft_dist.train") + 1 :]
    settings = parse_train_config(flags, checks=()).flat()
    assert settings["seed"] == 3
    assert settings["data_path"] == str(tmp_path / "data")
    assert (settings["dtype"], settings["ds_config"]) == (dtype, "zero2")
    assert settings["eval_backend"] == "vllm"


def test_an_epoch_of_the_recipe_is_a_whole_number_of_batches():
    assert demo.NUM_TRAIN % int(demo.RECIPE["global_batch_size"]) == 0
    train, test = make_problems(0, num_train=demo.NUM_TRAIN, num_test=demo.NUM_TEST)
    assert (len(train), len(test)) == (demo.NUM_TRAIN, demo.NUM_TEST)
    assert demo.NUM_TEST >= 200


def test_the_summary_takes_the_last_row_of_a_step():
    rows = [
        {"eval/step": 0, "eval/accuracy": 0.0},
        {"step": 10, "train/loss": 3.0},
        {"step": 20, "train/loss": 9.0},
        {"step": 20, "train/loss": 0.5},
        {"eval/step": 20, "eval/accuracy": 0.25},
        {"eval/step": 20, "eval/accuracy": 0.75},
    ]
    summary = demo.summarize(rows)
    assert "0.0% -> 75.0% (steps 0 -> 20)" in summary
    assert "loss 3.000 -> 0.500" in summary


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"eval/step": 0, "eval/accuracy": 0.0}],
        [{"step": 10, "train/loss": 3.0}],
        [{"step": 10, "train/loss": 3.0}, {"eval/step": 0, "eval/accuracy": 0.0}],
    ],
)
def test_without_an_accuracy_of_the_last_step_there_is_no_summary(rows):
    assert demo.summarize(rows) is None


@pytest.fixture
def small(monkeypatch):
    """A demo of a few problems whose training is replaced by `train`, set by the test."""
    monkeypatch.setattr(demo, "NUM_TRAIN", 8)
    monkeypatch.setattr(demo, "NUM_TEST", 4)
    monkeypatch.setattr(demo, "write_model", lambda directory, seed: directory.mkdir())

    def replace_training(rows, exit_code):
        def train(command, check, env):
            run_dir = Path(command[command.index("--output_dir") + 1])
            run_dir.mkdir()
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (run_dir / "metrics.jsonl").write_text(lines)
            return subprocess.CompletedProcess(command, exit_code)

        monkeypatch.setattr(demo.subprocess, "run", train)

    return replace_training


GOOD_ROWS = [{"step": 1, "train/loss": 3.0}, {"eval/step": 1, "eval/accuracy": 0.5}]


def test_a_second_demo_replaces_the_first(small, tmp_path, capsys):
    small(GOOD_ROWS, 0)
    arguments = ["--output_dir", str(tmp_path / "demo")]
    assert demo.main(arguments) == 0
    assert demo.main(arguments) == 0
    assert "50.0% -> 50.0%" in capsys.readouterr().out


def test_the_exit_code_is_that_of_failed_training(small, tmp_path, capsys):
    small(GOOD_ROWS, 3)
    assert demo.main(["--output_dir", str(tmp_path / "demo")]) == 3
    assert "FAILED" in capsys.readouterr().out


def test_training_without_a_last_evaluation_is_a_failure(small, tmp_path):
    small(GOOD_ROWS[:1], 0)
    assert demo.main(["--output_dir", str(tmp_path / "demo")]) == 1


def test_a_directory_that_no_demo_made_is_left_alone(small, tmp_path):
    small(GOOD_ROWS, 0)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SystemExit, match="choose another directory"):
        demo.main(["--output_dir", str(tmp_path)])
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
