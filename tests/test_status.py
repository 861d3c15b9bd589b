import fcntl
import json
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from sft_dist.reporting.state import read_now
from sft_dist.status import duration, main, status_facts
from tests.reporting.made_runs import (
    BEGAN,
    ask,
    checkpoint,
    claim,
    make_run,
    training_row,
    write_json,
    write_lines,
    write_run_files,
)


@pytest.fixture
def run_dir(tmp_path):
    """A run in its 40th of 100 steps: one checkpoint, two open evaluations."""
    run_dir = tmp_path / "run"
    write_run_files(run_dir, state="running", reason="training")
    rows = [
        training_row(step, seconds=time.time() - BEGAN - 2 * (40 - step)) for step in range(1, 41)
    ]
    write_lines(run_dir / "metrics.jsonl", rows)
    checkpoint(run_dir, 20)
    claim(ask(run_dir, 20, count=9), completed=5)
    ask(run_dir, 40, count=9)
    return run_dir


@contextmanager
def trainer_of(run_dir):
    with (run_dir / ".lock").open("w") as file:
        file.write("pid 77 on node1\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def facts(run_dir):
    return status_facts(read_now(run_dir))


def text(run_dir, capsys):
    main([str(run_dir)])
    return capsys.readouterr().out


def test_a_running_run_tells_step_rate_and_time_left(run_dir, capsys):
    with trainer_of(run_dir):
        found = facts(run_dir)
        shown = text(run_dir, capsys)
    assert (found["state"], found["trainer"], found["step"], found["total_steps"]) == (
        "running", "alive", 40, 100,
    )  # fmt: skip
    assert found["seconds_per_step"] == pytest.approx(2.0, abs=0.01)
    assert found["seconds_left"] == pytest.approx(120, abs=1)
    for part in ("running (training)", "pid 77 on node1", "40 of 100", "0:02:00 left"):
        assert part in shown


def test_open_evaluations_say_who_works_on_them(run_dir, capsys):
    shown = text(run_dir, capsys)
    assert "5 done by worker-1 (attempt 1, heartbeat 0:00:0" in shown
    assert "waits for a worker since" in shown
    assert [(e["step"], e["state"]) for e in facts(run_dir)["open_evaluations"]] == [
        (20, "claimed"), (40, "waiting"),
    ]  # fmt: skip


def test_a_killed_run_is_dead_and_says_how_to_go_on(run_dir, capsys):
    with trainer_of(run_dir):
        pass
    found = facts(run_dir)
    assert (found["state"], found["seconds_left"]) == ("dead", None)
    assert "without a word" in found["last_fault"]["what"]
    assert "--resume_from_checkpoint latest" in text(run_dir, capsys)


def test_a_stopped_run_is_where_its_status_says_and_its_evaluations_wait_for_it(run_dir, capsys):
    with trainer_of(run_dir):
        pass
    status = {"state": "requeue", "reason": "stopped", "time": 1.0, "step": 47}
    (run_dir / "status.json").write_text(json.dumps(status))
    assert facts(run_dir)["step"] == 47  # the last row is of step 40
    assert "waits for a worker, or the run to go on since" in text(run_dir, capsys)


def test_the_last_checkpoint_has_its_age_and_its_faults(run_dir, capsys):
    assert facts(run_dir)["last_checkpoint"]["name"] == "checkpoint-20"
    assert "ago" in text(run_dir, capsys)
    (run_dir / "checkpoint-20/config.json").unlink()
    assert "config.json is missing" in text(run_dir, capsys)


def test_the_last_fault_is_the_latest(run_dir):
    claim(ask(run_dir, 30), state="died", reason="signal 9")
    assert "signal 9" in facts(run_dir)["last_fault"]["what"]
    write_json(run_dir / "status.json", {"state": "failed", "reason": "loss is nan", "time": 3e9})
    assert facts(run_dir)["last_fault"]["what"] == "loss is nan"


def test_a_finished_run_has_no_time_left(tmp_path, capsys):
    run_dir = make_run(tmp_path / "run", num_problems=5)
    assert facts(run_dir)["seconds_left"] is None
    assert "finished (all steps are done)" in text(run_dir, capsys)
    assert "none open" in text(run_dir, capsys)


def test_a_run_without_a_row_is_told(tmp_path, capsys):
    write_run_files(tmp_path / "run", state="running", reason="training")
    assert "no row yet" in text(tmp_path / "run", capsys)


def test_json_is_one_object_with_the_same_facts(run_dir, capsys):
    main([str(run_dir), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == 40
    assert len(found["open_evaluations"]) == 2


def test_it_touches_nothing(run_dir):
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    main([str(run_dir)])
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before


def test_another_directory_is_a_fault(tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path)])
    assert raised.value.code == 2
    assert "--output_dir" in capsys.readouterr().err


def test_it_answers_within_a_second_and_without_torch(run_dir):
    program = (
        "import sys, sft_dist.status\n"
        f"sft_dist.status.main([{str(run_dir)!r}])\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "import time; print(time.process_time())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert float(done.stdout.splitlines()[-1]) < 1.0  # of processor time: the machine may be busy


def test_durations_are_read_at_a_glance():
    assert [duration(s) for s in (None, 65, 90_000)] == ["?", "0:01:05", "1 day, 1:00:00"]
