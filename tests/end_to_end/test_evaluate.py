"""`sft_dist.evaluate` on a model nobody has trained here: both back-ends, the same answers."""

import json
import subprocess
import sys

import pytest

from launch.demo.problems import make_problems
from sft_dist.config import DataConfig
from sft_dist.data.dataset import load_problems
from sft_dist.tracking.record import last_by, read_rows
from tests.end_to_end.runs import PLAIN, environment, flags, run

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


def test_a_hold_out_of_a_file_is_scored_and_nothing_that_was_trained_on(inputs, tmp_path):
    train, _ = make_problems(0, num_train=12, num_test=0)
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
    data = {"data_path": tmp_path / "mine.jsonl", "holdout": 3, "output_dir": tmp_path / "run"}
    run(EVALUATE, **{**inputs, **SETTINGS, **data, "eval_backend": "hf"})
    config = DataConfig(data_path=str(tmp_path / "mine.jsonl"), holdout=3)
    trained = {e.id for e in load_problems(config, evaluate=True, max_eval_samples=0).train}
    asked = {row["id"] for row in completions(tmp_path / "run")}
    assert len(asked) == 3
    assert not asked & trained


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


def test_a_run_is_served_from_outside_by_several_prompts(inputs, tmp_path):
    """The server is there before the run, as when both jobs are submitted together."""
    run_dir = tmp_path / "run"
    serve = [*EVALUATE, "--serve", str(run_dir)]
    server = subprocess.Popen(serve, env=environment(), stderr=subprocess.PIPE, text=True)
    settings = {"engine": "torch", "eval_backend": "hf", "eval_placement": "external"}
    short = {"max_steps": 2, "warmup_steps": 0, "global_batch_size": 8, "max_seq_length": 128}
    run(
        PLAIN, **inputs, **settings, **short, **SETTINGS, eval_steps=2, output_dir=run_dir,
        eval_prompts="question_only",
    )  # fmt: skip
    _, told = server.communicate(timeout=120)
    assert server.returncode == 0, told
    assert "left: the run has ended and nothing is open" in told
    assert not (run_dir / "logs" / "evaluation_worker.log").exists()  # the trainer started none
    rows = [row for row in read_rows(run_dir) if "eval/step" in row]
    assert len(rows) == 4
    scored = last_by(rows, "eval/step")
    assert list(scored) == [0, 2]
    for row in scored.values():
        assert row["eval/prompt"] == "default"
        assert row["eval/question_only/prompt"] == "question_only"
        assert row["eval/weights_fingerprint"] == row["eval/question_only/weights_fingerprint"]
        assert row["eval/num_problems"] == row["eval/question_only/num_problems"] == 8
    assert "eval/vs_base_p_value" in scored[2]
    assert {path.name for path in run_dir.glob("evaluations/step-*/*/samples.*")} == {
        "samples.md", "samples.parquet",
    }  # fmt: skip


def test_faults_are_told_together_and_nothing_is_started(tmp_path):
    command = [*EVALUATE, *flags(model_path=tmp_path / "none", eval_backnd="hf")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    for text in ("--eval_backnd", "--eval_backend", "--model_path", "--data_path"):
        assert text in done.stderr
