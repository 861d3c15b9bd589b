"""What the launcher is told of an error, and what is set before torch is loaded."""

import json
import os
import subprocess
import sys

from sft_dist.runtime.launch_environment import let_waiting_threads_sleep, tell_launcher


def raised(text):
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_the_first_error_of_a_process_is_the_one_that_torchrun_finds(tmp_path, monkeypatch):
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    tell_launcher(raised("the cause"))
    tell_launcher(raised("a consequence"))
    assert "the cause" in json.dumps(json.loads(path.read_text()))
    assert "a consequence" not in path.read_text()


def test_without_torchrun_nobody_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    tell_launcher(raised("the cause"))


def test_a_place_that_cannot_be_written_hides_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "absent" / "error.json"))
    tell_launcher(raised("the cause"))


def test_threads_that_wait_sleep_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_the_trainer_sets_it_before_torch_is_loaded():
    """OpenMP reads it once, when torch loads it; afterwards it would be without effect."""
    code = """
import sys
import sft_dist.train as trainer
from sft_dist.config import from_flat

def seen():
    print("torch is loaded" if "torch" in sys.modules else "in time")
    raise SystemExit

trainer.let_waiting_threads_sleep = seen
trainer.train(from_flat({"model_path": "m", "data_path": "o/d"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "in time", done.stderr
