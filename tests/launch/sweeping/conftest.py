import sys
from pathlib import Path

import pytest
import yaml

from launch import sweep as command
from launch.sweeping import local_runs

FAKE = Path(__file__).parent / "fake_trainer.py"


@pytest.fixture
def sweep_file(tmp_path, monkeypatch):
    """Writes a sweep file whose cells the fake trainer runs; 2 x 2 cells unless told otherwise."""
    monkeypatch.setattr(local_runs, "POLL_SECONDS", 0.02)

    def write(**keys):
        content = {
            "name": "trial",
            "output_dir": str(tmp_path / "out"),
            "flags": {"model_path": "owner/model", "data_path": "owner/data", "eval_backend": "hf"},
            "axes": {"learning_rate": ["1e-4", 2e-4], "seed": [1, 2]},
            "command": [sys.executable, str(FAKE)],
            **keys,
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
        return path

    return write


@pytest.fixture
def call(capsys):
    """Calls the command; (exit code, what it printed)."""

    def run(path, *options):
        code = command.main([str(path), *options])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run
