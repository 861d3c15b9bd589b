"""How a run begins: whose the directory is, and what is said when it cannot be had. One process."""

import json

import pytest
import torch

from sft_dist import opening
from sft_dist.errors import ConfigError
from sft_dist.opening import open_run_dir
from sft_dist.runtime.distributed import Ranks
from tests.test_resume import PREPARED, SAVED

RANK_ZERO = Ranks(0, 0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr(opening, "broadcast_text", lambda text: text)
    monkeypatch.setattr(opening, "log_to_file", lambda run_dir, rank: None)


def test_a_directory_that_is_free_is_taken_and_the_start_is_counted(configured, tmp_path):
    run_dir = tmp_path / "run"
    state = open_run_dir(configured(), PREPARED, RANK_ZERO, run_dir, SAVED)
    assert state == SAVED
    assert json.loads((run_dir / "status.json").read_text())["state"] == "running"
    assert (run_dir / "config.yaml").exists()
    assert json.loads((run_dir / "attempt.json").read_text())["attempt"] == SAVED.attempt


def test_a_directory_that_cannot_be_written_is_a_fault_with_its_path(configured, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        open_run_dir(configured(), PREPARED, RANK_ZERO, tmp_path / "file" / "run", SAVED)
    (fault,) = caught.value.faults
    assert str(tmp_path / "file" / "run") in fault
    assert "--output_dir" in fault
