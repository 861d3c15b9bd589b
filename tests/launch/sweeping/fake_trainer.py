"""Stands in for a trainer in tests of sweeps: standard library only, a few steps, real files.

Knows --output_dir, --learning_rate, --seed and --global_batch_size. It goes on after the last step
of its metrics.jsonl, obeys STOP, and fails while a file FAIL/<cell> is there (FAIL: environment).
One epoch is 256 examples, a run 4 epochs; accuracy grows with the learning rate.
"""

import json
import os
import sys
import time
from pathlib import Path

NUM_EPOCHS = 4


def main():
    flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
    run_dir = Path(flags["output_dir"])
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "starts").open("a") as starts:
        starts.write(json.dumps(flags) + "\n")
    (run_dir / "environment.json").write_text(json.dumps({"world_size": 2}))
    if (Path(os.environ.get("FAIL", "none")) / run_dir.name).exists():
        write_status(run_dir, "failed", "made to fail")
        sys.exit(1)
    per_epoch = 256 // int(flags.get("global_batch_size", 64))
    rate = float(flags["learning_rate"])
    metrics = run_dir / "metrics.jsonl"
    rows = (
        [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    )
    done = max((row["step"] for row in rows if "step" in row), default=0)
    write_status(run_dir, "running", "training")
    with metrics.open("a") as record:
        for step in range(done + 1, NUM_EPOCHS * per_epoch + 1):
            for row in step_rows(step, per_epoch, rate):
                record.write(json.dumps({"time": time.time(), "attempt": 1, **row}) + "\n")
            record.flush()
            time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
            if (run_dir / "STOP").exists():
                write_status(run_dir, "requeue", "STOP file: " + (run_dir / "STOP").read_text())
                return
    write_status(run_dir, "finished", "all steps are done")


def step_rows(step, per_epoch, rate):
    yield {
        "step": step,
        "train/loss": 3.0 - 1000 * rate,
        "train/epoch": step / per_epoch,
        "perf/tokens_per_second": 100.0,
        "perf/step_seconds": 0.1,
    }
    if step % per_epoch == 0:
        yield {"eval/step": step, "eval/accuracy": 1000 * rate, "eval/num_problems": 100}


def write_status(run_dir, state, reason):
    partial = run_dir / "status.tmp"
    partial.write_text(json.dumps({"state": state, "reason": reason}))
    partial.rename(run_dir / "status.json")


if __name__ == "__main__":
    main()
