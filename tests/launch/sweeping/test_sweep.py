"""`python -m launch.sweep` from file to table, with a fake trainer."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TWELVE = {"learning_rate": [1e-4, 2e-4, 3e-4, 4e-4], "seed": [1, 2, 3]}


def table(tmp_path):
    with (tmp_path / "out" / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def starts(tmp_path):
    """Cell -> how many times it was started."""
    files = (tmp_path / "out" / "cells").glob("*/starts")
    return {path.parent.name: len(path.read_text().splitlines()) for path in files}


def test_only_the_three_failed_of_twelve_cells_are_run_again(
    sweep_file, call, tmp_path, monkeypatch
):
    path = sweep_file(axes=TWELVE)
    _, plan = call(path, "--dry_run")
    names = [line.split()[2] for line in plan.splitlines() if line.startswith("run ")]
    failing = {names[1], names[6], names[11]}
    (tmp_path / "fail").mkdir()
    for name in failing:
        (tmp_path / "fail" / name).touch()
    monkeypatch.setenv("FAIL", str(tmp_path / "fail"))
    code, output = call(path, "--local")
    assert code == 1
    assert "3 failed, 9 finished" in output
    assert [row["state"] for row in table(tmp_path)].count("failed") == 3
    monkeypatch.delenv("FAIL")
    code, output = call(path, "--local")
    assert code == 0, output
    assert starts(tmp_path) == {name: 2 if name in failing else 1 for name in names}
    rows = table(tmp_path)
    assert len(rows) == 12
    assert {row["state"] for row in rows} == {"finished"}
    accuracies = [float(row["accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    code, _ = call(path, "--local")
    assert code == 0
    assert sum(starts(tmp_path).values()) == 15, "a third call has nothing to do"


def test_cells_that_fail_before_they_have_a_status_say_why(sweep_file, call, tmp_path):
    told = "error: 1 fault in the configuration:\\n  1. --seed: bad\\nTraceback"
    says = f"import sys; print('a line\\n{told}'); sys.exit(2)"
    code, output = call(sweep_file(command=[sys.executable, "-c", says]), "--local")
    assert code == 1
    assert "failed: 1 fault in the configuration: 1. --seed: bad\n" in output
    assert "sweep: 4 failed" in output
    assert str(next((tmp_path / "out" / "logs").glob("*.log"))) in output
    assert [row["reason"] for row in table(tmp_path)] == [
        "1 fault in the configuration: 1. --seed: bad"
    ] * 4


def test_the_table_says_what_a_cell_reached_and_cost(sweep_file, call, tmp_path):
    assert call(sweep_file(), "--local")[0] == 0
    best = table(tmp_path)[0]
    assert float(best["accuracy"]) == pytest.approx(0.2)
    # R: prop.test(20, 100, correct = FALSE)
    assert float(best["accuracy_low"]) == pytest.approx(0.1333669, abs=1e-6)
    assert float(best["accuracy_high"]) == pytest.approx(0.2888292, abs=1e-6)
    assert (best["learning_rate"], best["eval_step"], best["step"]) == ("0.0002", "16", "16")
    assert float(best["train_loss"]) == pytest.approx(2.8)
    assert float(best["tokens_per_second"]) == 100
    assert 0 < float(best["gpu_hours"]) < 0.01
    picture = (tmp_path / "out" / "sweep.svg").read_text()
    assert picture.count("<circle") == 4


def test_each_cell_has_a_directory_a_name_and_the_group_of_the_sweep(sweep_file, call, tmp_path):
    path = sweep_file()
    assert call(path, "--local")[0] == 0
    for cell in (tmp_path / "out" / "cells").iterdir():
        flags = json.loads((cell / "starts").read_text())
        assert flags["output_dir"] == str(cell)
        assert flags["wandb_group"] == "trial"
        assert flags["wandb_run_name"] == cell.name
        assert flags["resume_from_checkpoint"] == "latest"


def test_a_dry_run_prints_cells_and_sbatch_lines_and_writes_nothing(sweep_file, call, tmp_path):
    path = sweep_file(sbatch=["--nodes=2", "--time=04:00:00"], max_parallel=3)
    code, output = call(path, "--dry_run")
    assert code == 0
    (line,) = [line for line in output.splitlines() if line.startswith("sbatch ")]
    assert "--array=0-3%3" in line
    assert "--nodes=2 --time=04:00:00" in line
    assert line.endswith(f"{ROOT}/slurm/sweep.sh {tmp_path}/out/submissions/0001.json")
    assert "--learning_rate=0.0001" in output
    assert not (tmp_path / "out").exists()
    assert "fake_trainer.py --data_path=owner/data" in call(path, "--dry_run", "--local")[1]


def test_all_faults_are_told_at_once_and_nothing_starts(sweep_file, call, tmp_path):
    path = sweep_file(
        flags={"model_path": "owner/model", "lerning_rate": 1, "output_dir": "x"},
        axes={"seed": [1, "two"], "batch_size": [0]},
    )
    code, output = call(path, "--local")
    assert code == 2
    for fault in (
        "did you mean --learning_rate?",
        "output_dir: the sweep sets it",
        "--seed: expected int, found 'two'",
    ):
        assert fault in output
    assert not (tmp_path / "out" / "cells").exists()


def test_a_fault_of_values_names_the_cells_that_have_it(sweep_file, call):
    code, output = call(sweep_file(axes={"seed": [1, 2], "batch_size": [0, 4]}), "--dry_run")
    assert code == 2
    assert output.count("--batch_size: expected at least 1, found 0") == 1
    assert "and 1 more)" in output


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"sampller": "grid"}, "did you mean sampler?"),
        ({"sampler": "gird"}, "expected one of grid, random, optuna"),
        ({"axes": {}}, "at least one flag"),
        ({"sampler": "random"}, "how many cells random draws"),
        ({"axes": {"seed": {"low": 1, "high": 2}}}, "a grid needs a list"),
        ({"rules": {"learning_rate": "sqrt"}}, "reference_batch"),
        ({"rules": {"warmup_examples": 64}}, "global_batch_size under flags or axes"),
        ({"halving": {"rungs": [2, 1]}}, "ascending"),
        ({"halving": {"rungs": [1], "keep": 2}}, "between 0 and 1"),
        ({"name": None}, "expected a name"),
    ],
)
def test_faults_of_the_file_are_named(sweep_file, call, keys, fault):
    code, output = call(sweep_file(**keys), "--dry_run")
    assert code == 2
    assert fault in output


def test_a_cell_that_was_killed_is_run_again_and_one_that_runs_is_left(sweep_file, call, tmp_path):
    import fcntl

    path = sweep_file()
    assert call(path, "--local")[0] == 0
    killed, held, *_ = sorted((tmp_path / "out" / "cells").iterdir())
    for cell in (killed, held):
        (cell / "status.json").write_text(json.dumps({"state": "running", "reason": ""}))
    with (held / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        call(path, "--local")
    assert {name: count for name, count in starts(tmp_path).items() if count > 1} == {
        killed.name: 2
    }


def test_halving_stops_the_worst_and_takes_the_best_to_the_end(
    sweep_file, call, tmp_path, monkeypatch
):
    monkeypatch.setenv("STEP_SECONDS", "0.05")
    axes = {"learning_rate": [1e-4, 2e-4, 3e-4, 4e-4]}
    path = sweep_file(axes=axes, halving={"rungs": [1, 2], "keep": 0.5})
    code, output = call(path, "--local")
    assert code == 0, output
    states = {row["learning_rate"]: row["state"] for row in table(tmp_path)}
    assert states == {
        "0.0001": "dropped", "0.0002": "dropped", "0.0003": "dropped", "0.0004": "finished",
    }  # fmt: skip
    steps = {row["learning_rate"]: int(row["step"]) for row in table(tmp_path)}
    assert steps["0.0004"] == 16
    assert 4 <= steps["0.0001"] < 8 <= steps["0.0003"] < 16
    assert sorted(starts(tmp_path).values()) == [1, 1, 2, 3]


def test_two_calls_at_a_time_are_refused(sweep_file, call, tmp_path):
    import fcntl

    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, output = call(sweep_file(), "--local")
    assert (code, "in use" in output) == (2, True)


def test_without_slurm_it_says_so(sweep_file, tmp_path):
    reply = subprocess.run(
        [sys.executable, "-m", "launch.sweep", str(sweep_file())],
        cwd=ROOT, env={**os.environ, "PATH": "/nowhere"}, capture_output=True, text=True,
    )  # fmt: skip
    assert reply.returncode == 2
    assert "--local" in reply.stderr
