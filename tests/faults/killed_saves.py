"""Kills a process before every file operation of a save, and looks each time at what it left.

    python -m tests.faults.killed_saves DIRECTORY [FIRST STRIDE] > report.json

The process forks one child for each operation: torch is imported once. Every child dies by SIGKILL.
"""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

from sft_dist.checkpoint import damage, find_checkpoint, list_checkpoints, remove_leftovers
from sft_dist.config import from_flat
from sft_dist.runtime.distributed import Ranks
from sft_dist.saving import Saving
from tests.checkpoint.fakes import STATE, entries
from tests.fake_engine import FakeEngine, FakeTokenizer
from tests.faults.operations import Operations


def saving(run_dir, **settings):
    flags = {"keep_last_n_checkpoints": 1, **settings}
    engine = FakeEngine()
    found = Saving(
        from_flat(flags), engine=engine, tokenizer=FakeTokenizer(), num_parameters=4,
        ranks=Ranks(0, 0, 1, torch.device("cpu")), run_dir=run_dir,
        evaluations=SimpleNamespace(submit=lambda step, path: None),
        on_lost_evaluation=lambda step: None,
    )  # fmt: skip
    return engine, found


def save(run_dir, step, content, *, accuracies=None, reading=(), **settings):
    engine, found = saving(run_dir, **settings)
    found._evaluated_apart |= set(reading)
    engine.steps = content
    state = replace(STATE, step=step)
    found.checkpoint(state, evaluate=True, known=lambda: (set(reading), accuracies or {}))
    found.finish()


def export(run_dir, **settings):
    _, found = saving(run_dir, **settings)
    found.export(replace(STATE, step=8))
    found.finish()


SCENARIOS = {
    "a new checkpoint, old ones go": (
        [(1, 1), (2, 2), (3, 3)],
        lambda run_dir, **kwargs: save(run_dir, 6, 6, reading={2}, accuracies={1: 1.0}, **kwargs),
        6,
    ),
    "a step reached again": ([(3, 3), (6, 60)], lambda run_dir, **kw: save(run_dir, 6, 6, **kw), 6),
    "weights for an evaluation": ([(3, 3)], export, 3),
}


def prepared(directory, checkpoints):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for step, content in checkpoints:
        save(directory, step, content, keep_last_n_checkpoints=0, async_save=False)


def in_child(work):
    """Run `work` in a child; its exit status as of `waitpid`."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def count(run_dir, work):
    """The operations of the whole save, by name."""
    log = run_dir.parent / "operations.json"

    def recorded():
        operations = Operations(run_dir)
        operations.install()
        work(run_dir)
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            json.dump(operations.seen, file)

    assert in_child(recorded) == 0
    return json.loads(log.read_text())


def killed(run_dir, work, number):
    operations = Operations(run_dir, kill_at=number)

    def run():
        operations.install()
        work(run_dir)

    return os.WTERMSIG(in_child(run)) == signal.SIGKILL


def look(run_dir):
    """What a killed save left."""
    damaged = {path.name: damage(path) for path in list_checkpoints(run_dir)}
    latest = find_checkpoint(run_dir, "latest")
    return {
        "entries": entries(run_dir),
        "damaged": {name: faults for name, faults in damaged.items() if faults},
        "latest": latest.name if latest else None,
    }


def main():
    root = Path(sys.argv[1])
    first, stride = (int(text) for text in sys.argv[2:4]) if len(sys.argv) > 2 else (0, 1)
    report = []
    for scenario, (checkpoints, work, newest) in SCENARIOS.items():
        run_dir, template = root / "run", root / "template"
        prepared(template, checkpoints)
        shutil.copytree(template, run_dir)
        operations = count(run_dir, work)
        for number in range(first, len(operations), stride):
            shutil.rmtree(run_dir)
            shutil.copytree(template, run_dir)
            died = killed(run_dir, work, number)
            found = look(run_dir)
            remove_leftovers(run_dir)  # as the next attempt does
            work(run_dir, async_save=False)
            report.append({
                "scenario": scenario, "operation": operations[number], "died": died,
                "had": f"checkpoint-{checkpoints[-1][0]}", **found, "again": look(run_dir),
                "newest": f"checkpoint-{newest}",
            })  # fmt: skip
        shutil.rmtree(run_dir)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
