"""The main job as users start it: real processes, real DeepSpeed, real vLLM, a tiny model."""

import json
import shutil
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from sft_dist.checkpoint import damage, list_checkpoints
from sft_dist.tracking.record import last_by, read_rows
from tests.end_to_end.runs import (
    PLAIN,
    SFT_TRAIN,
    TWO_RANKS,
    environment,
    evaluations,
    flags,
    kill,
    losses,
    norms,
    run,
    start,
    wait_for,
)
from tests.tracking.test_wandb_view import read_run, wait_until_written

pytestmark = pytest.mark.slow

COMMON = {
    "global_batch_size": 16,  # 6 steps an epoch, the last of 10 examples
    "max_steps": 9,
    "batch_size": 4,
    "max_seq_length": 128,
    "learning_rate": 3e-3,
    "warmup_steps": 2,
    "save_steps": 3,
    "max_eval_samples": 12,
    "generation_max_length": 24,
}
EVALUATED = {**COMMON, "eval_steps": 5}
QUIET = {**COMMON, "eval_placement": "off"}


@pytest.fixture(scope="module")
def sharded(inputs, tmp_path_factory):
    """Two ranks, ZeRO-2 in bf16, evaluated by vLLM at steps 0, 5, 6 and 9."""
    run_dir = tmp_path_factory.mktemp("sharded") / "run"
    run(TWO_RANKS, **inputs, **EVALUATED, output_dir=run_dir)
    return run_dir


@pytest.fixture(scope="module")
def plain(inputs, tmp_path_factory):
    """One process without torchrun, plain torch in float32, evaluated by transformers."""
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    settings = {"engine": "torch", "dtype": "float32", "eval_backend": "hf", "eval_steps": 9}
    run(PLAIN, **inputs, **COMMON, **settings, output_dir=run_dir)
    return run_dir


def state(run_dir):
    return json.loads((run_dir / "status.json").read_text())["state"]


def test_a_sharded_run_trains_and_is_evaluated_at_each_step_asked_for(sharded):
    assert state(sharded) == "finished"
    curve = losses(sharded)
    assert list(curve) == list(range(1, 10))
    assert curve[9] < 0.8 * curve[1]
    scored = evaluations(sharded)
    assert list(scored) == [0, 5, 6, 9]
    for row in scored.values():
        assert row["eval/num_problems"] == 12
        assert 0.0 <= row["eval/accuracy"] <= 1.0
        assert row["eval/avg_token_entropy"] > 0
        assert row["eval/avg_response_length"] <= 24


def test_each_evaluation_scored_the_weights_of_its_own_step(sharded):
    entropies = [row["eval/avg_token_entropy"] for row in evaluations(sharded).values()]
    assert len(set(entropies)) == 4
    assert entropies[-1] < entropies[0]  # training makes the model surer of the form
    fingerprints = {
        json.loads(path.read_text())["weights_fingerprint"]
        for path in sharded.glob("evaluations/step-*/*/summary.json")
    }
    assert len(fingerprints) == 4


def test_checkpoints_are_whole_and_load_as_hugging_face_models(sharded):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = list_checkpoints(sharded)
    assert [path.name for path in found] == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]
    assert not any(damage(path) for path in found)
    model = AutoModelForCausalLM.from_pretrained(found[-1])
    assert model.config.tie_word_embeddings
    assert (
        model.generation_config.eos_token_id
        == AutoTokenizer.from_pretrained(found[-1]).eos_token_id
    )
    assert not list(sharded.glob(".exports/*"))  # step 5 was evaluated and not saved


def test_the_record_says_what_the_start_and_each_step_cost(sharded):
    first, *others = last_by(read_rows(sharded), "step").values()
    parts = ["imports", "data", "ranks", "observers", "engine", "first_step"]
    assert min(first[f"startup/{part}_seconds"] for part in parts) > 0
    assert first["startup/first_step_seconds"] >= first["perf/step_seconds"]
    assert not any(name.startswith("startup/") for row in others for name in row)
    for row in (first, *others):
        assert row["perf/useful_token_share"] == 1.0
        assert 1.0 <= row["perf/rank_imbalance"] < 1.2
        assert 0 < row["perf/data_wait_seconds"] < row["perf/step_seconds"]
        assert row["perf/memory_gib"] > 0.1


def test_the_ranks_of_all_runs_share_one_file_of_tokens(inputs, sharded, plain):
    assert len(list((inputs["cache_dir"] / "tokens").glob("*.safetensors"))) == 1


def test_wandb_has_a_run_with_the_same_rows(sharded):
    wait_until_written(sharded)
    rows, axes, _ = read_run(sharded)
    assert axes["eval/*"] == "eval/step"
    logged = {row["train/step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert logged == losses(sharded)
    assert {row["eval/step"] for row in rows if "eval/accuracy" in row} == {0, 5, 6, 9}
    tables = [key for row in rows for key in row if key.startswith("eval/sample_generations")]
    assert tables


def test_a_killed_sharded_run_resumes_to_the_same_losses(inputs, sharded, tmp_path):
    run_dir = tmp_path / "run"
    process = start(TWO_RANKS, **inputs, **QUIET, output_dir=run_dir)
    wait_for(lambda: 5 in losses(run_dir), process)
    kill(process)
    assert 9 not in losses(run_dir)
    run(TWO_RANKS, resume_from_checkpoint="latest", output_dir=run_dir)
    assert losses(run_dir) == losses(sharded)
    assert norms(run_dir) == norms(sharded)
    mine, theirs = (load_file(d / "checkpoint-9/model.safetensors") for d in (run_dir, sharded))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_ranks_whose_launcher_is_killed_save_and_leave(inputs, tmp_path):
    run_dir = tmp_path / "run"
    long = {**QUIET, "max_steps": 500, "num_epochs": 90, "save_steps": 1000}
    process = start(TWO_RANKS, **inputs, **long, output_dir=run_dir)
    wait_for(lambda: 3 in losses(run_dir), process)
    process.kill()
    deadline = time.monotonic() + 60
    while state(run_dir) == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert state(run_dir) == "requeue"
    assert list_checkpoints(run_dir)


def test_a_run_directory_takes_one_trainer_at_a_time(inputs, tmp_path):
    run_dir = tmp_path / "run"
    settings = {**QUIET, "engine": "torch", "max_steps": 5000, "num_epochs": 900}
    process = start(PLAIN, **inputs, **{**settings, "save_steps": 100000}, output_dir=run_dir)
    wait_for(lambda: 2 in losses(run_dir), process)
    command = [*PLAIN, *flags(resume_from_checkpoint="latest", output_dir=run_dir)]
    second = subprocess.run(command, env=environment(), capture_output=True, text=True)
    kill(process)
    assert second.returncode == 2
    assert f"in use by pid {process.pid}" in second.stderr


def test_a_refused_resume_leaves_the_run_as_it_was(plain):
    files = ["config.yaml", "status.json", "environment.json"]
    before = [(plain / name).read_bytes() for name in files]
    for change in ({"seed": 1}, {"max_steps": 4}):
        command = [*PLAIN, *flags(resume_from_checkpoint="latest", output_dir=plain, **change)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        assert done.returncode == 2
        assert f"--{next(iter(change))}" in done.stderr
    assert [(plain / name).read_bytes() for name in files] == before


def test_a_plain_process_trains_and_is_evaluated(plain):
    assert state(plain) == "finished"
    assert losses(plain)[9] < 0.8 * losses(plain)[1]
    assert list(evaluations(plain)) == [0, 6, 9]


def test_evaluations_may_wait_until_training_ends(inputs, tmp_path):
    settings = {"engine": "torch", "eval_backend": "hf", "eval_placement": "after"}
    short = {**COMMON, "max_steps": 2, "warmup_steps": 0, "eval_steps": 1}
    run_dir = tmp_path / "run"
    done = run(PLAIN, **inputs, **short, **settings, output_dir=run_dir)
    assert list(evaluations(run_dir)) == [0, 1, 2]
    assert done.stderr.index("step 2/2") < done.stderr.index("evaluation of step 0")


def test_plain_torch_and_zero2_learn_the_same(plain, sharded):
    for step, loss in losses(plain).items():
        assert losses(sharded)[step] == pytest.approx(loss, rel=2e-2)  # bf16 against float32


def test_a_run_asked_to_stop_saves_and_goes_on_with_sft_train(inputs, plain, tmp_path):
    run_dir = tmp_path / "run"
    settings = {"engine": "torch", "dtype": "float32"}
    process = start(PLAIN, **inputs, **QUIET, **settings, output_dir=run_dir)
    wait_for(lambda: 4 in losses(run_dir), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert state(run_dir) == "requeue"
    stopped_at = max(losses(run_dir))
    assert (run_dir / f"checkpoint-{stopped_at}").is_dir()
    run(SFT_TRAIN, resume_from_checkpoint=run_dir)
    assert state(run_dir) == "finished"
    assert losses(run_dir) == losses(plain)


def test_a_run_directory_in_use_is_refused_before_anything_starts(inputs, plain):
    command = [*PLAIN, *flags(**inputs, output_dir=plain)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "--resume_from_checkpoint" in done.stderr


def test_a_model_that_does_not_load_is_told_and_leaves_a_failed_run(inputs, tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(inputs["model_path"], broken)
    weights = load_file(broken / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    command = [*PLAIN, *flags(model_path=broken, data_path=inputs["data_path"], **QUIET)]
    command += flags(engine="torch", output_dir=tmp_path / "run")
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert "model.norm.weight" in done.stderr
    assert state(tmp_path / "run") == "failed"


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_a_compiled_model_trains_on_the_same_curve(inputs, tmp_path):
    settings = {**inputs, **QUIET, "engine": "torch", "max_steps": 3}
    run(PLAIN, **settings, dtype="float32", output_dir=tmp_path / "plain")
    run(PLAIN, **settings, dtype="float32", compile="true", output_dir=tmp_path / "compiled")
    plain, compiled = losses(tmp_path / "plain"), losses(tmp_path / "compiled")
    assert len(plain) == 3
    assert compiled == pytest.approx(plain, rel=1e-5)
