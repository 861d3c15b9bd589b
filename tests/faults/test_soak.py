"""A sample of `make soak`: whole runs, killed and resumed. A soak that could not fail is none."""

import json
import random
import shutil
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from sft_dist.checkpoint.manifest import MANIFEST, file_entry, files_in, manifest_text
from tests.end_to_end.runs import ROOT, environment
from tests.faults.soak_checks import (
    damaged,
    differences,
    faults_after_kill,
    faults_of_resume,
    on_training_thread,
    optimizer_tensors,
    shortcomings,
    training_state,
)
from tests.faults.soak_plan import Draw, kind_of, operation_of, operations_in

pytestmark = pytest.mark.slow
KILLS = 4
LAST = "checkpoint-14"
CHANGED = """
import json, sys
from pathlib import Path
from tests.faults.attempts import preload
from tests.faults.points import Kill
from tests.faults.soak import Soak, make_jobs
from tests.faults.soak_plan import PlannedRun

preload()
directory = Path(sys.argv[1])
found = Soak(directory, make_jobs(directory / "inputs"))
kill = Kill("rank 0", "step 13: recorded", False)
found.run(PlannedRun("alone", (kill,)), learning_rate=2e-3)
print(json.dumps(found.faults))
"""


def python(*arguments, expected):
    done = subprocess.run(
        [sys.executable, *arguments], env=environment(), cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == expected, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Of a soak of four kills; the uninterrupted run stays in it."""
    directory = tmp_path_factory.mktemp("soak") / "runs"
    python(
        "-m", "tests.faults.soak", str(directory), "--kills", str(KILLS), "--seed", "2",
        "--jobs", "alone", "--output", str(directory.with_suffix(".json")), expected=0,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def reference(directory):
    return directory / "alone-uninterrupted"


@pytest.fixture
def run_dir(reference, tmp_path):
    """A run that ended as it should, to be spoilt."""
    return shutil.copytree(reference, tmp_path / "run")


def relisted(checkpoint):
    """Make a changed checkpoint pass for a whole one."""
    listed = {str(p.relative_to(checkpoint)): file_entry(p) for p in files_in(checkpoint)}
    step = int(checkpoint.name.rpartition("-")[2])
    (checkpoint / MANIFEST).write_text(manifest_text(step, listed))
    assert not damaged(checkpoint.parent)


def test_killed_runs_end_bit_identical_to_the_uninterrupted_one(directory):
    report = json.loads(directory.with_suffix(".json").read_text())
    assert report["kills"] == report["ended_bit_identical"] == KILLS
    assert not report["faults"]
    assert report["after_first_step"] >= 0.8 * KILLS
    assert sum(kind.startswith("save: ") for kind in report["kinds"]) >= 2
    assert len(report["save_operations"]["kinds_recorded"]) >= 8
    assert len(report["save_operations"]["recorded"]) > 60


def test_the_end_of_the_uninterrupted_run_equals_itself(run_dir, reference):
    assert differences(run_dir, reference) == []


def test_a_resume_with_another_learning_rate_is_told_from_an_exact_one(directory):
    faults = "\n".join(
        json.loads(python("-c", CHANGED, str(directory), expected=0).splitlines()[-1])
    )
    assert "step 13: train/learning_rate" in faults
    assert f"{LAST}: model.safetensors" in faults
    assert f"{LAST}: engine" in faults


def test_one_changed_weight_is_found(run_dir, reference):
    path = run_dir / LAST / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][7] += 0.125
    save_file(weights, path, metadata={"format": "pt"})
    assert f"{LAST} is damaged" in faults_after_kill(run_dir, 14)[0]
    relisted(path.parent)
    assert differences(run_dir, reference) == [
        f"{LAST}: model.safetensors: 1 of {len(weights)} tensors differ, first model.norm.weight"
    ]


def test_one_changed_moment_of_the_optimizer_is_found(run_dir, reference):
    engine = run_dir / LAST / "engine"
    state = optimizer_tensors(engine)
    name = "model.norm.weight.exp_avg_sq"
    state[name][0] = torch.nextafter(state[name][0], torch.tensor(1.0))
    dcp.save(state, checkpoint_id=engine, no_dist=True)
    relisted(engine.parent)
    (told,) = differences(run_dir, reference)
    assert told == f"{LAST}: engine: 1 of {len(state)} tensors differ, first {name}"


def test_a_changed_training_state_is_found_unless_it_counts_the_starts(run_dir, reference):
    path = run_dir / LAST / "training_state.pt"
    state = training_state(path.parent)
    torch.save({**state, "attempt": 9}, path)
    relisted(path.parent)
    assert differences(run_dir, reference) == []
    torch.save({**state, "target_tokens": 1}, path)
    relisted(path.parent)
    assert "target_tokens is 1" in differences(run_dir, reference)[0]


@pytest.mark.parametrize("name", ["train/loss", "train/grad_norm_preclip"])
def test_a_changed_row_and_a_lost_one_are_found(run_dir, reference, name):
    path = run_dir / "metrics.jsonl"
    *rows, last = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows))
    assert "recorded are" in differences(run_dir, reference)[0]
    row = json.loads(last)
    path.write_text("".join([*rows, json.dumps({**row, name: row[name] + 1e-9}) + "\n"]))
    assert f"step 14: {name}" in differences(run_dir, reference)[0]


def test_less_than_there_was_before_is_found(run_dir, reference):
    (run_dir / ".tmp-checkpoint-3").mkdir()
    shutil.rmtree(run_dir / LAST)
    assert faults_after_kill(run_dir, 14) == ["the newest checkpoint was 14 and is 12"]
    found = differences(run_dir, reference)
    assert found == [f"{LAST} is missing", "left behind: ['.tmp-checkpoint-3']"]


def test_a_resume_from_an_older_checkpoint_is_found(run_dir):
    assert faults_of_resume(run_dir, 8, 8) == []
    assert faults_of_resume(run_dir, 8, 6) == ["resumed at step 9, the newest checkpoint was 6"]


def test_a_save_on_the_training_thread_is_found():
    wrong = "step 4: fsync .tmp-checkpoint-4/config.json"
    points = [
        ("rank 0", "save 4: fsync .tmp-checkpoint-4/config.json"), ("rank 0", wrong),
        ("rank 0", "step 4: write metrics.jsonl"),
    ]  # fmt: skip
    assert on_training_thread(points) == [wrong]


def test_a_soak_that_shows_too_little_says_so():
    report = {
        "kills": 50, "after_first_step": 40,
        "save_operations": {
            "kinds_recorded": ["fsync", "rename"], "kinds_killed_before": ["fsync"],
        },
    }  # fmt: skip
    (short,) = shortcomings(report)
    assert "rename" in short
    assert shortcomings({**report, "kills": 49}) == []
    assert "only 39 of 49 kills" in shortcomings({**report, "kills": 49, "after_first_step": 39})[0]


def test_every_damage_of_a_real_checkpoint_is_found(run_dir):
    """Truncated, one bit flipped, or gone: real weights, optimizer shards, manifest, tokenizer."""
    checkpoint, rng = run_dir / LAST, random.Random(7)
    files = [*sorted(files_in(checkpoint)), checkpoint / MANIFEST]
    for number in range(60):
        path = files[number % len(files)]
        whole = path.read_bytes()
        changed = bytearray(whole)
        position = rng.randrange(len(whole))
        if number % 3 == 0:
            path.write_bytes(whole[:position])
        elif number % 3 == 1:
            changed[position] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
        else:
            path.unlink()
        assert damaged(run_dir).keys() == {LAST}, f"damage {number} of {path.name}"
        path.write_bytes(whole)
    assert damaged(run_dir) == {}


SAVE = [
    "mkdir .tmp-checkpoint-{}", "write .tmp-checkpoint-{}/config.json",
    "write .tmp-checkpoint-{}/model.safetensors", "fsync .tmp-checkpoint-{}/config.json",
    "rename .tmp-checkpoint-{}",
]  # fmt: skip
PLACES = ["start-up: before the data", "step 1: recorded", "step 2: after the backward"]
RECORDED = [
    ("rank 0", point)
    for point in (*PLACES, *(f"save {step}: {o.format(step)}" for step in (4, 8) for o in SAVE))
]


def test_every_kind_of_operation_is_drawn_first_and_every_operation_before_one_twice():
    for seed in range(20):
        kills = [
            kill for run in Draw({"alone": RECORDED}, seed).runs("alone", 12) for kill in run.kills
        ]
        assert {(kill.process, kill.point) for kill in kills} <= set(RECORDED)
        saves = [p for kill in Draw({"alone": RECORDED}, seed).kills("alone", 12)
                 if (p := operation_of(kill.process, kill.point))]  # fmt: skip
        assert {kind for kind, _ in saves[:4]} == {"mkdir", "write", "fsync", "rename"}
        assert {name for _, name in saves[:5]} == set(operations_in(RECORDED))
        assert len(saves) == 8  # two of three


def test_a_seed_draws_the_same_runs_and_another_one_others():
    drawn = [Draw({"alone": RECORDED}, seed).runs("alone", 12) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_points_are_called_by_what_they_are():
    assert kind_of("rank 0", "save 4: half write .tmp-checkpoint-4/x #2") == "save: half write"
    assert kind_of("rank 0", "step 3: half write metrics.jsonl") == "the row"
    assert kind_of("rank 1", "step 6: an epoch's end #3") == "an epoch's end"
    assert kind_of("worker", "evaluation worker: mkdir evaluations/x") == "the worker's files"
    assert kind_of("rank 0", "owner lease: open x") is None
