"""The real vLLM engine on tiny random models: in one session, and behind the client."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from sft_dist.evaluation.client import EvaluationClient
from sft_dist.evaluation.hf_generator import HfGenerator
from sft_dist.evaluation.worker_process import WorkerOptions
from sft_dist.functions import get_response_log_probs
from tests.evaluation.engine_session import HEAD, STALE_PARAMETERS
from tests.evaluation.models import CHARACTERS, EOS, GREEDY, problems, save_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    save_model(directory / "m1", seed=1)
    save_model(directory / "m2", seed=2)
    save_model(directory / "bfloat16", seed=3, dtype="bfloat16")
    save_model(directory / "wide", seed=4, vocabulary=6000)
    shutil.copytree(directory / "m1", directory / "m1_bin")
    weights = directory / "m1_bin" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    return directory


@pytest.fixture(scope="module")
def session(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("session") / "record.json"
    command = [sys.executable, "-m", "tests.evaluation.engine_session", str(models), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def reference(models):
    """Greedy completions of the transformers back-end, by model."""
    generator = HfGenerator(batch_size=3)

    def decode(name):
        generator.load(models / name)
        return generator.generate(problems(6), GREEDY, lambda count: None)

    return {name: decode(name) for name in ("m1", "m2")}


def outcome(rows):
    return [(row["id"], row["response"], row["num_tokens"], row["finish_reason"]) for row in rows]


def expected(completions):
    return [(c.id, c.response, c.num_tokens, c.finish_reason) for c in completions]


def test_it_decodes_what_transformers_decodes(session, reference):
    assert session["first load"]["loaded"] == "new engine"
    assert outcome(session["m1"]["rows"]) == expected(reference["m1"])


def test_the_second_evaluation_scores_the_second_weights(session, reference):
    assert session["second load"]["loaded"] == "in place"
    assert outcome(session["m2"]["rows"]) == expected(reference["m2"])
    assert outcome(session["m2"]["rows"]) != outcome(session["m1"]["rows"])


def test_torch_files_can_be_reloaded_too(session, reference):
    assert session["bin load"]["loaded"] == "in place"
    assert outcome(session["m1_bin"]["rows"]) == expected(reference["m1"])


def test_a_reload_without_repair_decodes_with_the_old_head_and_the_proof_says_so(
    session, reference
):
    """The defect of vLLM 0.32 on CPU; when this fails, the repair may no longer be needed."""
    assert session["stale"] == ["output head (as applied)"]
    stale = outcome(session["m1 with the head of m2"]["rows"])
    assert stale not in (expected(reference["m1"]), expected(reference["m2"]))


@pytest.mark.parametrize("name", [HEAD, *STALE_PARAMETERS])
def test_an_engine_that_is_stale_in_one_thing_is_refused_by_name(session, name):
    told = "output head (as applied)" if name == HEAD else name
    assert "does not compute with the weights in" in session[f"stale {name}"]
    assert f"1 tensors differ, {told}; nothing was scored" in session[f"stale {name}"]


def test_after_a_refusal_a_new_engine_has_the_right_weights(session, reference):
    assert session["load after a refusal"]["loaded"] == "new engine"
    assert outcome(session["m1 again"]["rows"]) == expected(reference["m1"])


def test_an_engine_that_was_reloaded_and_is_closed_gives_its_weights_back(session):
    assert session["kept after the end"] == []


def test_the_self_test_sees_a_stale_head_that_no_proof_sees(session):
    assert session["self-test"] is None
    assert session["self-test of a wide model"] is None
    assert "decodes otherwise than a new one" in session["self-test of a stale head"]


def test_a_model_that_is_missing_does_not_harm_the_engine(session, reference):
    assert "nowhere" in session["missing"]
    assert outcome(session["m1 after a missing model"]["rows"]) == expected(reference["m1"])


def test_the_entropy_is_that_of_a_teacher_forced_forward(session, models):
    for name, tolerance in (("m1", 1e-4), ("m2", 1e-4), ("bfloat16", 0.06)):
        rows = {row["id"]: row for row in session[name]["rows"]}
        for item in problems(6):
            row = rows[item.id]
            assert row["mean_token_entropy"] == pytest.approx(
                teacher_forced_entropy(models / name, item, row), abs=tolerance
            )


def teacher_forced_entropy(model_dir, item, row):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir)
    generated = [CHARACTERS.index(character) for character in row["response"]]
    generated += [EOS] if row["finish_reason"] == "stop" else []
    assert len(generated) == row["num_tokens"]
    text = torch.tensor([[*item.prompt_token_ids, *generated]])
    with torch.inference_mode():
        found = get_response_log_probs(model, text[:, :-1], text[:, 1:], return_token_entropy=True)
    return found["token_entropy"][0, len(item.prompt_token_ids) - 1 :].mean().item()


@pytest.mark.exhaustive
def test_two_processes_that_share_an_engine_decode_as_one_and_prove_their_parts(
    models, reference, tmp_path
):
    out = tmp_path / "record.json"
    module = "tests.evaluation.tensor_parallel_session"
    done = subprocess.run(
        [sys.executable, "-m", module, str(models), str(out)], capture_output=True, text=True,
        timeout=240, env={**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "0|1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    record = json.loads(out.read_text())
    for name, how in (("m1", "new engine"), ("m2", "in place")):
        assert record[name]["facts"]["loaded"] == how
        assert outcome(record[name]["rows"]) == expected(reference[name])
        for row, alone in zip(record[name]["rows"], reference[name], strict=True):
            assert row["mean_token_entropy"] == pytest.approx(alone.mean_token_entropy, abs=1e-4)
    assert "output head (as applied)" in record["stale"]


def test_a_prompt_too_long_is_counted_and_longer_requests_get_a_larger_engine(session):
    rows = {row["id"]: row for row in session["bfloat16"]["rows"]}
    assert rows["long"]["num_tokens"] == 0
    assert rows["long"]["finish_reason"] == "length"
    assert rows["long"]["mean_token_entropy"] is None
    assert rows["nearly"]["num_tokens"] == 3  # 125 of the model's 128 positions are the prompt
    assert rows["p0"]["num_tokens"] > 3


def test_samples_repeat_with_their_seed_in_any_order(session):
    first, again = session["sampled"]
    assert outcome(first["rows"]) == outcome(again["rows"][::-1])


def test_progress_counts_up_to_all(session):
    seen = session["m1"]["seen"]
    assert seen == sorted(seen)
    assert seen[-1] == 6


def test_behind_the_client_with_the_worker_killed_in_between(models, reference, tmp_path):
    options = WorkerOptions(
        backend="vllm", warm_model=str(models / "m1"), max_model_len=64, enforce_eager=True,
        self_test_cache=str(tmp_path / "cache"),
    )  # fmt: skip
    with EvaluationClient(tmp_path, options=options, grading_workers=1) as client:
        parts = {"prompt_name": "default", "form": "boxed", "sampling": GREEDY}
        client.submit(step=0, model_dir=models / "m1", problems=problems(6), **parts)
        (first,) = client.drain(120)
        os.kill(client._worker.pid, signal.SIGKILL)
        client.submit(step=500, model_dir=models / "m2", problems=problems(6), **parts)
        (second,) = client.drain(120)
    assert (first.error, second.error) == (None, None)
    for result, name, how in ((first, "m1", "in place"), (second, "m2", "in place")):
        assert result.summary["generation"]["loaded"] == how
        assert result.summary["generation"]["weights_proved"]
        assert [row["response"] for row in result.samples] == [
            completion.response for completion in reference[name]
        ]
    assert len(list(tmp_path.glob("cache/reload-self-test/*.json"))) == 1  # passed, and kept
    attempts = sorted(path.name for path in tmp_path.glob("evaluations/step-*/*/attempt-*"))
    assert attempts == ["attempt-1", "attempt-1"]
