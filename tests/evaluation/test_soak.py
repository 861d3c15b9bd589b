"""Twenty evaluations asked for at random times while worker and trainer are killed: none is lost,
none is there twice, each scored its own weights. Real processes; only the engine is a fake.
`benchmarks/eval_soak.py` does the same to a real training run with vLLM.
"""

import json
import random
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.evaluation.results import read_completions
from sft_dist.fingerprint import weights_fingerprint
from sft_dist.tracking.record import read_rows
from tests.evaluation.models import save_weights

NUM_STEPS, WORKER_KILLS, TRAINER_KILLS = 20, 5, 3


def start(run_dir, models):
    command = [sys.executable, "-m", "tests.evaluation.soak_trainer", run_dir, models, NUM_STEPS]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)


def living_worker(trainer):
    """The trainer's worker, once it has begun its work."""
    for child in psutil.Process(trainer.pid).children():
        # One killed a moment ago may not have been waited for yet: a zombie has no command line.
        with suppress(psutil.NoSuchProcess):
            if "tests.evaluation.fake_worker" in child.cmdline():
                return child
    return None


def kill_worker(trainer, seconds=20):
    deadline = time.monotonic() + seconds
    while (worker := living_worker(trainer)) is None:
        assert trainer.poll() is None, trainer.stderr.read()
        assert time.monotonic() < deadline, "no worker to kill"
        time.sleep(0.05)
    worker.kill()


def reported(run_dir):
    return len(read_rows(run_dir)) if run_dir.exists() else 0


@pytest.mark.slow
def test_twenty_evaluations_survive_eight_kills(tmp_path):
    run_dir, models = tmp_path / "run", tmp_path / "models"
    run_dir.mkdir()
    for step in range(NUM_STEPS):
        save_weights(models / f"m{step}", float(step))
    chance = random.Random()
    trainer = start(run_dir, models)
    kills = ["worker"] * WORKER_KILLS + ["trainer"] * TRAINER_KILLS
    chance.shuffle(kills)
    for number, victim in enumerate(kills):
        # Not all at once: each kill meets a run that has come somewhat further.
        while reported(run_dir) < number * NUM_STEPS // (len(kills) + 2):
            assert trainer.poll() is None, trainer.stderr.read()
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, 0.3))
        if victim == "worker":
            kill_worker(trainer)
        else:
            trainer.kill()
            trainer.communicate()
            trainer = start(run_dir, models)
    _, errors = trainer.communicate(timeout=120)
    assert trainer.returncode == 0, errors
    check(run_dir, models)


def check(run_dir, models):
    rows = [row for row in read_rows(run_dir) if "eval/step" in row]
    assert sorted(row["eval/step"] for row in rows) == list(range(NUM_STEPS))
    for row in rows:
        expected = weights_fingerprint(models / f"m{row['eval/step']}")
        assert row["eval/weights_fingerprint"] == expected
    requests = list(EvaluationQueue(run_dir).requests())
    assert len(requests) == NUM_STEPS
    for queued in requests:
        completions = read_completions(queued)
        assert {c.response for c in completions} == {f"m{queued.request.step} says \\boxed{{1}}"}
        assert len(completions) == 3
        grades = (queued.directory / "grades.jsonl").read_text().splitlines()
        assert [json.loads(line)["verdict"] for line in grades] == ["correct"] * 3
