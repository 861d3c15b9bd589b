"""`python -m launch.sweep` as an array in a private Slurm, with the fake trainer of the sweeps."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "launch" / "sweeping" / "fake_trainer.py"
AXES = {"learning_rate": [1e-4, 2e-4, 3e-4, 4e-4], "seed": [1, 2, 3]}


@pytest.fixture
def sweep(slurm, tmp_path):
    """Calls the command as a user on the head node does; what it printed."""
    # One rank without torch: torchrun itself runs in test_real_slurm.py.
    torchrun = tmp_path / "bin" / "torchrun"
    torchrun.parent.mkdir()
    torchrun.write_text(
        "#!/usr/bin/env bash\n"
        "while [[ $1 != -- ]]; do shift; done\nshift\nflags=()\n"
        "while (($# > 0)); do\n"
        '  if [[ $1 == *=* ]]; then flags+=("$1"); shift; else flags+=("$1=$2"); shift 2; fi\n'
        "done\n"
        f'exec {sys.executable} {FAKE} "${{flags[@]}}"\n'
    )
    torchrun.chmod(0o755)
    environment = {
        **slurm,
        "SITE_VENV": "",
        "FAIL": str(tmp_path / "fail"),
        "NPROC_PER_NODE": "1",
    }
    environment["PATH"] = f"{tmp_path}/bin:{Path(sys.executable).parent}:{environment['PATH']}"

    def call(*options, **keys):
        content = {
            "name": "twelve",
            "output_dir": str(tmp_path / "out"),
            "flags": {"model_path": "owner/model", "data_path": "owner/data", "eval_backend": "hf"},
            "axes": AXES,
            "sbatch": ["--gpus-per-node=0", "--mem=100M", "--time=10", "--oversubscribe",
                       f"--chdir={tmp_path}"],
            **keys,
        }  # fmt: skip
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(content))
        environment["STEP_SECONDS"] = "0.3" if "halving" in keys else "0"
        reply = subprocess.run(
            [sys.executable, "-m", "launch.sweep", str(path), *options],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return reply.stdout + reply.stderr

    return call


def rows_when(sweep, condition, seconds=120, **keys):
    """The last output and nothing more, once the table's states satisfy `condition`."""
    deadline = time.monotonic() + seconds
    while True:
        output = sweep("--table", **keys)
        if condition(output):
            return output
        assert time.monotonic() < deadline, output
        time.sleep(0.5)


def submissions(tmp_path):
    files = sorted((tmp_path / "out" / "submissions").glob("*.json"))
    return [[cell["name"] for cell in json.loads(path.read_text())["cells"]] for path in files]


@pytest.mark.slow
def test_the_second_array_runs_exactly_the_three_cells_that_failed(sweep, tmp_path):
    plan = sweep("--dry_run")
    names = [line.split()[2] for line in plan.splitlines() if line.startswith("run ")]
    failing = [names[0], names[5], names[7]]
    (tmp_path / "fail").mkdir()
    for name in failing:
        (tmp_path / "fail" / name).touch()
    assert "12 cells as array job" in sweep()
    # While they are in the queue a call starts none of them again.
    assert "array job" not in sweep()
    rows_when(sweep, lambda output: "3 failed, 9 finished" in output)
    for name in failing:
        (tmp_path / "fail" / name).unlink()
    assert "3 cells as array job" in sweep()
    rows_when(sweep, lambda output: "sweep: 12 finished" in output)
    assert submissions(tmp_path) == [names, failing]
    with (tmp_path / "out" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {row["state"] for row in rows} == {"finished"}
    for name in names:
        starts = (tmp_path / "out" / "cells" / name / "starts").read_text().splitlines()
        assert len(starts) == (2 if name in failing else 1)


@pytest.mark.slow
def test_an_array_is_halved_stage_by_stage(sweep, tmp_path):
    keys = {
        "axes": {"learning_rate": [1e-4, 2e-4, 3e-4, 4e-4]},
        "halving": {"rungs": [1], "keep": 0.25},
    }
    assert "4 cells as array job" in sweep(**keys)
    rows_when(sweep, lambda output: "active" not in output and "stage 2" in output, **keys)
    assert "1 cells as array job" in sweep(**keys)
    output = rows_when(sweep, lambda output: "1 finished" in output, **keys)
    assert "3 dropped" in output
    (second,) = submissions(tmp_path)[1]
    assert second.startswith("learning_rate-0.0004-")
