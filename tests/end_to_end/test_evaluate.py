"""`sft_dist.evaluate` on a model nobody has trained here: both back-ends, the same answers."""

import json
import subprocess
import sys

import pytest

from tests.end_to_end.runs import environment, flags, run

pytestmark = pytest.mark.slow
EVALUATE = [sys.executable, "-m", "sft_dist.evaluate"]
SETTINGS = {"max_eval_samples": 8, "generation_max_length": 16}


def completions(run_dir):
    (path,) = run_dir.glob("evaluations/step-000000/*/completions.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def by_vllm(inputs, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("vllm") / "run"
    return run_dir, run(EVALUATE, **inputs, **SETTINGS, output_dir=run_dir)


@pytest.fixture(scope="module")
def by_transformers(inputs, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("hf") / "run"
    return run_dir, run(EVALUATE, **inputs, **SETTINGS, eval_backend="hf", output_dir=run_dir)


def test_a_model_is_scored_and_the_figures_are_told_and_kept(by_vllm):
    run_dir, done = by_vllm
    assert "accuracy" in done.stdout
    assert "by subject" in done.stdout
    assert len(completions(run_dir)) == 8
    assert json.loads((run_dir / "status.json").read_text())["state"] == "finished"
    (row,) = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert row["eval/step"] == 0
    assert row["eval/num_problems"] == 8


def test_both_back_ends_evaluate_the_same_problems(by_vllm, by_transformers):
    ids = [[row["id"] for row in completions(run_dir)] for run_dir, _ in (by_vllm, by_transformers)]
    assert ids[0] == ids[1]


def test_the_summary_says_what_was_scored_and_how(by_transformers):
    run_dir, _ = by_transformers
    (path,) = run_dir.glob("evaluations/step-000000/*/summary.json")
    summary = json.loads(path.read_text())
    assert {
        "weights_fingerprint",
        "prompt_name",
        "grader_version",
        "by_subject",
        "by_level",
    } <= set(summary)


def test_faults_are_told_together_and_nothing_is_started(tmp_path):
    command = [*EVALUATE, *flags(model_path=tmp_path / "none", eval_backnd="hf")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    for text in ("--eval_backnd", "--eval_backend", "--model_path", "--data_path"):
        assert text in done.stderr
