"""The trainer's side against a real worker process with a fake generator, and real grading."""

import json
import os
import shutil
import signal
import sys
import time

import pytest

from sft_dist.errors import EvaluationError
from sft_dist.evaluation import client as client_module
from sft_dist.evaluation import generator
from sft_dist.evaluation.client import EvaluationClient
from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.evaluation.request import Sampling
from sft_dist.evaluation.watcher import Submission
from sft_dist.evaluation.worker_process import WorkerOptions, WorkerProcess
from tests.evaluation.models import problems, save_weights

FAKE_WORKER = (sys.executable, "-m", "tests.evaluation.fake_worker")


class Bench:
    """Makes clients on one run directory, and closes them."""

    def __init__(self, tmp_path):
        self.run_dir = tmp_path / "run"
        self.models = tmp_path
        self.queue = EvaluationQueue(self.run_dir)
        self.done = []
        self.steps = {}
        self.clients = []

    def client(
        self,
        *,
        command=FAKE_WORKER,
        max_deaths=4,
        stale_seconds=120.0,
        start=True,
        watch_seconds=0.05,
        **options,
    ):
        worker = WorkerProcess(
            self.run_dir,
            WorkerOptions(backend="hf", stale_seconds=stale_seconds),
            on_death=self.queue.abandon,
            command=command,
            max_deaths=max_deaths,
            first_pause_seconds=0.01,
        )
        client = EvaluationClient(
            self.run_dir,
            worker=worker,
            options=WorkerOptions(backend="hf"),
            grading_workers=1,
            watch_seconds=watch_seconds,
            on_done=lambda model_dir: self.done.append(self.steps[model_dir]),
            **options,
        )
        client.start(worker=start)
        self.clients.append(client)
        return client

    def submit(self, client, step, name="m", **changes):
        model_dir = self.models / name
        if not model_dir.exists():
            save_weights(model_dir, float(len(list(self.models.iterdir()))))
        parts = {
            "step": step,
            "model_dir": model_dir,
            "problems": problems(3),
            "prompt_name": "default",
            "form": "boxed",
            "sampling": Sampling(max_new_tokens=8),
        }
        parts |= changes
        self.steps[str(parts["model_dir"])] = step
        client.submit(**parts)

    def only(self, step):
        (queued,) = [q for q in self.queue.requests() if q.request.step == step]
        return queued


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    for client in bench.clients:
        client.close()


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def drained(client, seconds=30.0):
    return sorted(client.drain(seconds), key=lambda result: result.step)


def test_who_waits_for_results_does_not_wait_for_the_next_look(bench):
    client = bench.client(watch_seconds=3600.0)
    bench.submit(client, 0, "m0")
    (result,) = drained(client)
    assert result.error is None


def test_results_arrive_with_metrics_samples_and_files(bench):
    client = bench.client()
    bench.submit(client, 0, "m0")
    bench.submit(client, 500, "m1")
    first, second = drained(client)
    assert (first.step, second.step) == (0, 500)
    assert first.error is None
    assert first.metrics["eval/accuracy"] == 1.0
    assert first.metrics["eval/num_problems"] == 3
    assert second.samples[0]["response"] == "m1 says \\boxed{1}"
    assert second.summary["by_level"]["1"]["accuracy"] == 1.0
    assert second.row["eval/step"] == 500
    assert second.row["eval/prompt"] == "default"
    assert second.row["eval/decoding"] == "greedy, 8 tokens"
    assert second.row["eval/weights_fingerprint"] == second.request.weights_fingerprint
    assert second.metrics["eval/vs_base_gained"] == 0
    assert second.summary["comparisons"]["base"]["step"] == 0
    directory = bench.only(500).directory
    grades = [json.loads(line) for line in (directory / "grades.jsonl").open()]
    assert [grade["verdict"] for grade in grades] == ["correct"] * 3
    assert json.loads((directory / "summary.json").read_text()) == second.summary
    assert sorted(bench.done) == [0, 500]
    assert client.pending == 0


def test_submit_and_poll_do_not_wait_for_anything(bench, monkeypatch):
    def slow_hash(model_dir):
        time.sleep(1.0)
        return "f" * 64

    monkeypatch.setattr("sft_dist.evaluation.watcher.weights_fingerprint", slow_hash)
    client = bench.client()
    started = time.monotonic()
    bench.submit(client, 0)
    assert client.poll() == []
    assert client.pending == 1
    assert time.monotonic() - started < 0.5


def test_the_same_submission_twice_is_generated_once_and_answered_twice(bench):
    client = bench.client()
    bench.submit(client, 0)
    (first,) = drained(client)
    bench.submit(client, 0)
    (again,) = drained(client)
    assert again.metrics == first.metrics
    assert again.samples == first.samples
    assert bench.only(0).attempts() == [1]


def test_another_prompt_has_names_of_its_own(bench):
    client = bench.client(training_prompt="default")
    bench.submit(client, 0)
    bench.submit(client, 0, prompt_name="r1_zero", form="r1_zero")
    results = {result.request.prompt_name: result.metrics for result in client.drain(30)}
    assert results["default"]["eval/accuracy"] == 1.0
    assert results["r1_zero"]["eval/r1_zero/accuracy"] == 0.0
    assert not set(results["default"]) & set(results["r1_zero"])


def test_several_prompts_of_one_step_share_the_loaded_weights(bench):
    client = bench.client(training_prompt="default")
    for step, name in ((0, "m0"), (500, "m1")):
        model_dir = str(save_weights(bench.models / name, float(step + 1)))
        bench.steps[model_dir] = step
        client.submit_all(
            Submission(step, model_dir, problems(3), prompt, form, Sampling(max_new_tokens=8))
            for prompt, form in (("r1_zero", "r1_zero"), ("default", "boxed"))
        )
    results = drained(client)
    assert [result.step for result in results] == [0, 0, 500, 500]
    loaded = [result.summary["generation"].get("loaded") for result in results]
    assert sorted(how or "anew" for how in loaded[:2]) == ["anew", "kept"]
    assert sorted(how or "anew" for how in loaded[2:]) == ["anew", "kept"]
    assert {sample["response"] for result in results[2:] for sample in result.samples} == {
        "m1 says \\boxed{1}"
    }
    assert sorted(bench.done) == [0, 500]


def test_weights_stay_while_a_prompt_of_theirs_is_open_although_another_is_graded(bench):
    """After a restart the graded one is found first; the other one still reads the weights."""
    first = bench.client()
    bench.submit(first, 7, "m")
    drained(first)
    bench.submit(first, 7, "m", prompt_name="r1_zero", form="r1_zero")
    drained(first)
    first.close()
    for queued in bench.queue.requests():
        (queued.directory / "reported").unlink(missing_ok=True)
        if queued.request.prompt_name == "r1_zero":
            (queued.directory / "summary.json").unlink()
            (queued.directory / "completions.jsonl").unlink()
    bench.done.clear()
    again = bench.client(start=False)
    wait_for(lambda: not again._results.empty())
    assert bench.done == []
    again.start_worker()
    drained(again)
    assert bench.done == [7]


def test_weights_may_go_only_when_no_other_request_needs_them(bench):
    client = bench.client()
    bench.submit(client, 7, "m")
    bench.submit(client, 7, "m", prompt_name="r1_zero", form="r1_zero")
    assert len(drained(client)) == 2
    assert bench.done == [7]


def test_a_model_directory_that_does_not_exist_is_an_error_of_that_result_alone(bench):
    client = bench.client()
    bench.submit(client, 0, model_dir=bench.models / "nowhere")
    bench.submit(client, 500)
    missing, fine = drained(client)
    assert "expected a model directory" in missing.error
    assert fine.error is None
    assert sorted(bench.done) == [0, 500]


def test_a_worker_killed_at_work_is_restarted_and_nothing_is_lost_or_doubled(bench):
    client = bench.client()
    bench.submit(client, 0, "deadly")
    bench.submit(client, 500, "m")
    first, second = drained(client)
    assert (first.error, second.error) == (None, None)
    assert bench.only(0).attempts() == [1, 2]
    assert bench.only(500).attempts() == [1]
    assert "SIGKILL" in bench.only(0).heartbeat(1)["reason"]
    (failed,) = first.summary["failed_attempts"]
    assert failed.startswith("attempt 1: ")
    assert "SIGKILL" in failed
    assert second.summary["failed_attempts"] == []


def test_a_request_that_kills_every_worker_is_reported_and_the_others_served(bench):
    client = bench.client(max_deaths=10)
    bench.submit(client, 0, "fatal")
    bench.submit(client, 500, "m")
    fatal, fine = drained(client)
    assert "3 attempts ended without completions" in fatal.error
    assert fine.error is None


def test_a_worker_that_cannot_live_is_reported_with_its_last_words(bench):
    words = "ModuleNotFoundError: No module named 'vllm'"
    command = (sys.executable, "-c", f"import sys; sys.exit({words!r})")
    client = bench.client(command=command, max_deaths=2)
    bench.submit(client, 0)
    (result,) = drained(client)
    assert words in result.error
    assert "evaluation_worker.log" in result.error
    assert bench.only(0).is_open  # the next start of the run tries again
    assert bench.done == []


def test_a_run_that_was_killed_takes_up_its_open_requests(bench):
    broken = bench.client(command=(sys.executable, "-c", "import sys; sys.stdin.read()"))
    bench.submit(broken, 500)
    wait_for(lambda: list(bench.queue.requests()))
    broken.close()
    (result,) = drained(bench.client())
    assert (result.step, result.error) == (500, None)


def test_closing_drops_a_generation_under_way_and_the_next_client_finishes_it(bench):
    client = bench.client()
    bench.submit(client, 500, "slow")
    wait_for(lambda: list(bench.queue.requests()) and bench.only(500).attempts())
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 8
    queued = bench.only(500)
    assert queued.heartbeat(1)["state"] == "stopped"
    (bench.models / "slow").rename(bench.models / "quick")
    again = bench.client()
    bench.submit(again, 500, "quick")  # the same weights: the same request, elsewhere
    results = drained(again)
    assert {result.error for result in results} == {None}
    assert queued.attempts() == [1, 2]


def test_results_not_confirmed_before_a_crash_are_delivered_again(bench):
    client = bench.client()
    bench.submit(client, 0)
    wait_for(lambda: not client._results.empty())
    assert len(client.poll()) == 1
    client._closing = True  # as if killed before it could log: nothing is confirmed
    client._thread.join()
    (again,) = drained(bench.client())
    assert again.metrics["eval/accuracy"] == 1.0
    bench.clients[-1].close()
    assert drained(bench.client()) == []


def test_completions_published_while_no_trainer_lived_are_graded(bench):
    first = bench.client()
    bench.submit(first, 0)
    drained(first)
    first.close()
    directory = bench.only(0).directory
    for name in ("grades.jsonl", "summary.json", "reported"):
        (directory / name).unlink()
    (result,) = drained(bench.client())
    assert result.metrics["eval/accuracy"] == 1.0
    assert bench.only(0).attempts() == [1]


def test_a_worker_may_be_started_after_training(bench):
    client = bench.client(start=False)
    bench.submit(client, 0, "m0")
    bench.submit(client, 500, "m1")
    wait_for(lambda: len(client.open_requests) == 2)
    assert {q.request.step for q in bench.queue.requests()} == {0, 500}  # they survive a crash
    assert list(client.drain(0.3)) == []
    client.start_worker()
    assert [result.error for result in drained(client)] == [None, None]
    assert client.open_requests == []


def test_grading_that_cannot_work_is_an_error_and_training_goes_on(bench, monkeypatch):
    client = bench.client()

    def broken(pairs, *, form):
        raise EvaluationError("expected grading workers to start")

    monkeypatch.setattr(client._pool, "grade_many", broken)
    bench.submit(client, 0)
    (result,) = drained(client)
    assert "expected grading workers to start" in result.error
    assert bench.only(0).is_published


def test_an_unexpected_error_is_reported_and_the_thread_lives_on(bench, monkeypatch):
    client = bench.client()
    monkeypatch.setattr(client._pool, "grade_many", lambda pairs, form: 1 / 0)
    bench.submit(client, 0)
    (result,) = drained(client)
    assert "ZeroDivisionError" in result.error
    monkeypatch.undo()
    bench.submit(client, 500, "other")
    (fine,) = drained(client)
    assert fine.error is None


def test_drain_stops_at_its_limit_and_shows_progress(bench):
    client = bench.client()
    bench.submit(client, 500, "slow")
    seen = []
    assert list(client.drain(1.0, on_progress=seen.append)) == []
    assert client.pending == 1
    assert seen[-1].total == 3
    assert seen[-1].step == 500


def test_the_worker_sees_nothing_of_torchrun(bench, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("HF_HOME", "/kept")
    code = "import os, sys; print(sorted(os.environ)); sys.stdin.read()"
    bench.client(command=(sys.executable, "-c", code))
    log = bench.run_dir / "logs" / "evaluation_worker.log"
    wait_for(lambda: log.exists() and "]" in log.read_text())
    names = log.read_text()
    assert "HF_HOME" in names
    assert not [n for n in ("LOCAL_RANK", "TORCHELASTIC", "MASTER_ADDR") if n in names]


def test_a_stale_claim_of_a_worker_on_a_dead_node_is_taken_over(bench):
    first = bench.client()
    bench.submit(first, 500, "slow")
    wait_for(lambda: list(bench.queue.requests()) and bench.only(500).attempts())
    os.kill(first._worker.pid, signal.SIGSTOP)  # as a lost node looks: silence
    first._watcher.worker = None
    shutil.copytree(bench.models / "slow", bench.models / "quick")
    second = bench.client(stale_seconds=3.0)
    bench.submit(second, 500, "quick")
    results = drained(second)
    assert {result.error for result in results} == {None}
    assert bench.only(500).attempts() == [1, 2]
    os.kill(first._worker.pid, signal.SIGKILL)


def test_a_missing_vllm_is_reported_at_the_start_with_the_way_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(generator.importlib.util, "find_spec", lambda name: None)
    client = client_module.EvaluationClient(tmp_path, options=WorkerOptions(backend="vllm"))
    with pytest.raises(EvaluationError, match=r"pip install .*--eval_backend hf"):
        client.start()
