"""The worker's loop with a fake generator, and the process around it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from sft_dist.errors import EvaluationError
from sft_dist.evaluation.claims import Claimer
from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.evaluation.request import EvaluationRequest, Sampling, problems_file, problems_text
from sft_dist.evaluation.results import read_completions
from sft_dist.evaluation.serving import EvaluationWorker
from sft_dist.fingerprint import weights_fingerprint
from tests.evaluation.models import FakeGenerator, problems, save_weights

PROBLEMS = problems_text(problems(3))


def submit(queue, model_dir, step=0):
    request = EvaluationRequest(
        step=step,
        model_dir=str(model_dir),
        weights_fingerprint=weights_fingerprint(model_dir),
        prompt_name="default",
        form="boxed",
        sampling=Sampling(max_new_tokens=8),
        problems_file=problems_file(PROBLEMS),
        num_problems=3,
    )
    return queue.submit(request, PROBLEMS)


@pytest.fixture
def queue(tmp_path):
    return EvaluationQueue(tmp_path / "run")


def serve_all(queue, generator, **options):
    """Run a worker until nothing is open."""
    leave = threading.Event()
    leave.set()
    stop = options.pop("stop", threading.Event())
    warm_model = options.pop("warm_model", None)
    claimer = Claimer(queue, options.pop("name", "one"), **options)
    EvaluationWorker(
        claimer, generator, stop=stop, leave=leave, poll_seconds=0.01, warm_model=warm_model
    ).run()


def test_each_request_is_served_with_its_own_weights(queue, tmp_path):
    first = submit(queue, save_weights(tmp_path / "m1", 1.0), step=0)
    second = submit(queue, save_weights(tmp_path / "m2", 2.0), step=500)
    generator = FakeGenerator()
    serve_all(queue, generator)
    assert generator.loaded == ["m1", "m2"]
    for queued, name in ((first, "m1"), (second, "m2")):
        rows = read_completions(queued)
        assert [row.response for row in rows] == [f"{name} says \\boxed{{1}}"] * 3
        assert queued.published_facts()["num_tokens"] == 12
        assert queued.published_facts()["weights_fingerprint"] == weights_fingerprint(
            queued.request.model_dir
        )


def test_requests_of_the_same_weights_load_them_once(queue, tmp_path):
    model_dir = save_weights(tmp_path / "m1", 1.0)
    first, again = submit(queue, model_dir, step=0), submit(queue, model_dir, step=1)
    other = submit(queue, save_weights(tmp_path / "m2", 2.0), step=2)
    generator = FakeGenerator()
    serve_all(queue, generator)
    assert generator.loaded == ["m1", "m2"]
    assert "loaded" not in first.published_facts()
    assert again.published_facts()["loaded"] == "kept"
    assert "loaded" not in other.published_facts()


@pytest.mark.parametrize("place", ["checkpoint-5", ".exports/step-000005-attempt-1"])
def test_weights_of_the_run_are_found_where_this_host_sees_the_run(queue, tmp_path, place):
    queued = submit(queue, save_weights(tmp_path / "elsewhere" / place))
    (queue.run_dir / place).parent.mkdir(exist_ok=True)
    (tmp_path / "elsewhere" / place).rename(queue.run_dir / place)
    serve_all(queue, FakeGenerator())
    assert queued.is_published


def test_the_base_model_is_found_where_this_host_has_it(queue, tmp_path):
    theirs, mine = save_weights(tmp_path / "theirs"), tmp_path / "mine"
    queued = submit(queue, theirs)
    theirs.rename(mine)
    other = submit(queue, save_weights(tmp_path / "other", 2.0), step=3)
    shutil.rmtree(tmp_path / "other")
    serve_all(queue, FakeGenerator(), warm_model=mine)
    assert queued.is_published
    assert "no longer holds the weights" in other.failure()  # the base model is no substitute


def test_weights_are_loaded_again_after_a_failure(queue, tmp_path):
    model_dir = save_weights(tmp_path / "m1", 1.0)
    submit(queue, model_dir, step=0)
    generator = FakeGenerator()
    generator.errors = [RuntimeError("the engine is gone")]
    serve_all(queue, generator)
    assert generator.loaded == ["m1", "m1"]


def test_a_model_that_is_gone_is_a_reported_failure_and_not_retried(queue, tmp_path):
    gone = submit(queue, save_weights(tmp_path / "gone"))
    (tmp_path / "gone" / "model.safetensors").unlink()
    (tmp_path / "gone").rmdir()
    after = submit(queue, save_weights(tmp_path / "there"), step=500)
    serve_all(queue, FakeGenerator())
    assert "expected a model directory" in gone.failure()
    assert gone.attempts() == [1]
    assert after.is_published


def test_weights_that_changed_since_they_were_submitted_are_not_scored(queue, tmp_path):
    queued = submit(queue, save_weights(tmp_path / "m", 1.0))
    save_weights(tmp_path / "m", 2.0)
    generator = FakeGenerator()
    serve_all(queue, generator)
    assert "no longer holds the weights that were submitted" in queued.failure()
    assert generator.loaded == []


def test_an_engine_that_fails_once_is_tried_again(queue, tmp_path):
    queued = submit(queue, save_weights(tmp_path / "m"))
    generator = FakeGenerator()
    generator.errors = [RuntimeError("CUDA error: unspecified launch failure")]
    serve_all(queue, generator)
    assert queued.is_published
    assert queued.attempts() == [1, 2]


def test_an_engine_that_always_fails_ends_the_request_with_its_reason(queue, tmp_path):
    queued = submit(queue, save_weights(tmp_path / "m"))
    generator = FakeGenerator()
    generator.errors = [EvaluationError("the engine does not compute with the weights")] * 9
    serve_all(queue, generator, max_attempts=3)
    assert "the engine does not compute with the weights" in queued.failure()
    assert len(generator.errors) == 6


def test_a_worker_told_to_stop_drops_its_generation_and_frees_the_claim(queue, tmp_path):
    queued = submit(queue, save_weights(tmp_path / "m"))
    stop = threading.Event()

    class Stopping(FakeGenerator):
        def generate(self, problems, sampling, on_progress):
            stop.set()
            return super().generate(problems, sampling, on_progress)

    serve_all(queue, Stopping(), stop=stop)
    assert queued.is_open
    assert queued.heartbeat(1)["state"] == "stopped"
    serve_all(queue, FakeGenerator(), name="next")
    assert queued.is_published


def test_an_engine_that_hangs_is_noticed(queue, tmp_path):
    submit(queue, save_weights(tmp_path / "m"))
    noticed = threading.Event()

    class Hanging(FakeGenerator):
        def load(self, model_dir):
            assert noticed.wait(10)
            return super().load(model_dir)

    leave = threading.Event()
    leave.set()
    worker = EvaluationWorker(
        Claimer(queue, "one"),
        Hanging(),
        stop=threading.Event(),
        leave=leave,
        heartbeat_seconds=0.01,
        stall_seconds=0.1,
        on_stall=noticed.set,
    )
    worker.run()
    assert noticed.is_set()


def test_two_workers_share_a_queue_without_doing_anything_twice(queue, tmp_path):
    requests = [submit(queue, save_weights(tmp_path / f"m{i}", float(i)), step=i) for i in range(8)]
    generators = [FakeGenerator(), FakeGenerator()]
    threads = [
        threading.Thread(target=serve_all, args=(queue, generator), kwargs={"name": f"w{i}"})
        for i, generator in enumerate(generators)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert all(queued.is_published and queued.attempts() == [1] for queued in requests)
    assert sorted(generators[0].loaded + generators[1].loaded) == [f"m{i}" for i in range(8)]


def start_process(queue, *flags):
    command = [sys.executable, "-m", "tests.evaluation.fake_worker", str(queue.run_dir), *flags]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_the_process_leaves_when_its_standard_input_ends(queue, tmp_path):
    queued = submit(queue, save_weights(tmp_path / "slow"))
    process = start_process(queue)
    wait_for(lambda: queued.attempts() == [1])
    process.stdin.close()
    assert process.wait(10) == 0, process.stderr.read()
    assert queued.is_open
    assert queued.heartbeat(1)["state"] == "stopped"
    process.stderr.close()


def test_the_process_leaves_when_its_parent_dies_and_the_pipe_lives_on(queue, tmp_path):
    """As when the trainer is killed while a data loader it forked still holds the pipe."""
    submit(queue, save_weights(tmp_path / "m"))
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "tests.evaluation.fake_worker", str(queue.run_dir)]
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen({command!r}, stdin={reader})\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, pass_fds=[reader], text=True
    )
    pid = int(parent.stdout.readline())
    wait_for(lambda: any(queued.is_published for queued in queue.requests()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    try:
        wait_for(lambda: not is_running(pid), 10)
    finally:
        os.close(reader)
        os.close(writer)
        parent.stdout.close()


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_finish_open_serves_what_is_open_and_then_leaves(queue, tmp_path):
    requests = [submit(queue, save_weights(tmp_path / f"m{i}"), step=i) for i in range(2)]
    process = start_process(queue, "--finish_open")
    process.stdin.close()
    assert process.wait(20) == 0, process.stderr.read()
    assert all(queued.is_published for queued in requests)
    process.stderr.close()
