"""Stands in for the trainer where only the scripts around it are tested.

Run from this directory's parent as `python -m sft_dist.train`. Each rank writes its command line
and environment to OUTPUT_DIR/seen; rank 0 then does what STUB_BEHAVIOUR says:

    finish          status finished
    wait            wait for a STOP file, status requeue; on a later attempt: finished
    wait_for_term   the same for SIGTERM, whatever STOP says
    crash           an exception on rank 1
    die             exit code 0 without a status
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

SECONDS_TO_WAIT = 300


def main():
    if "--print_config" in sys.argv:  # a script asks whether the flags are right
        return
    run_dir = Path(sys.argv[sys.argv.index("--output_dir") + 1])
    rank = int(os.environ["RANK"])
    seen = run_dir / "seen"
    seen.mkdir(exist_ok=True)
    attempt = os.environ.get("SLURM_RESTART_COUNT", "0")
    record = {"argv": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}
    write(seen / f"attempt-{attempt}-rank-{rank}.json", record)
    print(f"stub rank {rank} says hello", flush=True)
    behaviour = os.environ.get("STUB_BEHAVIOUR", "finish")
    if behaviour == "crash" and rank == 1:
        raise RuntimeError("stub crashes on rank 1")
    if rank == 0 and behaviour != "die":
        write(run_dir / "status.json", status(behaviour, run_dir, first=attempt == "0"))


def status(behaviour, run_dir, first):
    terminated = []
    signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
    if behaviour == "finish" or not first:
        return {"state": "finished", "reason": "all steps done"}
    write(run_dir / "status.json", {"state": "running", "reason": "waiting"})
    for _ in range(SECONDS_TO_WAIT * 10):
        time.sleep(0.1)
        stop = run_dir / "STOP"
        if behaviour == "wait" and stop.exists():
            return {"state": "requeue", "reason": stop.read_text().strip()}
        if behaviour == "wait_for_term" and terminated:
            return {"state": "requeue", "reason": "SIGTERM"}
    return {"state": "failed", "reason": "nothing happened"}


def write(path, value):
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    temporary.rename(path)


if __name__ == "__main__":
    main()
