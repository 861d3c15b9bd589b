"""config.yaml, environment.json, status.json: what people, resumes and launchers read."""

import json
import re
from pathlib import Path

import pytest
import yaml

from sft_dist.arguments import parse_train_config, read_run_config
from sft_dist.runtime.run_directory import (
    new_run_dir,
    write_run_files,
    write_status,
)


def test_the_run_directory_is_the_one_that_was_named(configured):
    assert new_run_dir(configured(output_dir="runs/a")) == Path("runs/a")


@pytest.mark.parametrize("model", ["models/Qwen2.5-Math-1.5B", "Qwen/Qwen2.5-Math-1.5B", "/a/b/"])
def test_else_it_is_named_after_the_model_and_the_time(configured, model):
    found = new_run_dir(configured(model_path=model))
    assert found.parent == Path("outputs")
    assert re.fullmatch(re.escape(Path(model).name) + r"-\d{8}-\d{6}", found.name)


def test_the_stored_settings_are_what_a_resume_needs(tmp_path, configured):
    config = configured(
        learning_rate=1e-5, adam_eps=1e-8, batch_size=2, resume_from_checkpoint="latest", holdout=3
    )
    run_dir = tmp_path / "run"
    write_run_files(run_dir, config, 8, global_batch_size=128)
    stored = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert set(stored) == set(config.flat())
    assert stored["global_batch_size"] == 128  # a number: another world size does not change it
    assert stored["resume_from_checkpoint"] is None
    assert stored["output_dir"] == str(run_dir)
    assert stored["learning_rate"] == 1e-5
    assert read_run_config(run_dir) == stored


def test_a_run_resumed_at_another_world_size_keeps_its_global_batch(tmp_path, configured):
    run_dir = tmp_path / "run"
    write_run_files(run_dir, configured(), 8, global_batch_size=256)
    resumed = parse_train_config(["--resume_from_checkpoint", str(run_dir)], ())
    assert resumed.global_batch_size(2) == 256


def test_a_stored_file_can_be_given_as_config_again(tmp_path, configured):
    run_dir = tmp_path / "run"
    write_run_files(run_dir, configured(learning_rate=3e-7), 1, global_batch_size=32)
    again = parse_train_config(
        ["--config", str(run_dir / "config.yaml"), "--output_dir", "other"], ()
    )
    assert again == configured(learning_rate=3e-7, global_batch_size=32, output_dir="other")


def test_the_environment_says_what_ran(tmp_path, configured):
    write_run_files(tmp_path, configured(), 8, global_batch_size=256)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["world_size"] == 8
    assert environment["packages"]["torch"].startswith("2.")
    assert environment["packages"]["flash-attn"] is None or environment["packages"]["flash-attn"]
    assert environment["command"]
    assert (tmp_path / "logs").is_dir()


def test_no_secret_of_the_environment_is_written(tmp_path, configured, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-wandb")
    monkeypatch.setenv("HF_TOKEN", "secret-of-hf")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    write_run_files(tmp_path, configured(), 1, global_batch_size=1)
    assert all("secret-of" not in p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    variables = json.loads((tmp_path / "environment.json").read_text())["variables"]
    assert variables["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("state", ["running", "finished", "requeue", "failed"])
def test_the_status_says_state_reason_and_more(tmp_path, state):
    write_status(tmp_path, "running", "training")
    write_status(tmp_path, state, "because", step=7)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["reason"], status["step"]) == (state, "because", 7)
    assert status["time"] > 1e9
