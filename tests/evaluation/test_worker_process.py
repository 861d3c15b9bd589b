"""Starting, burying and restarting the worker, with tiny programs in its place."""

import os
import sys
import time

import pytest

from sft_dist.evaluation.worker import _parser
from sft_dist.evaluation.worker_process import WorkerOptions, WorkerProcess, scrubbed_environment


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def deaths():
    return []


def process(tmp_path, deaths, code, clock, max_deaths=3):
    return WorkerProcess(
        tmp_path,
        WorkerOptions(),
        on_death=lambda worker, reason: deaths.append((worker, reason)),
        command=(sys.executable, "-c", code),
        max_deaths=max_deaths,
        first_pause_seconds=10.0,
        clock=clock,
    )


def tend_until(worker, condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        worker.tend()
        time.sleep(0.01)


def test_the_environment_loses_what_torchrun_set_and_keeps_the_rest():
    before = {
        "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "29500", "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_RUN_ID": "x", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1", "PET_NNODES": "2",
        "HOME": "/root", "CUDA_VISIBLE_DEVICES": "0,1", "PYTHONPATH": "/mine", "WORLD_SIZE": "8",
    }  # fmt: skip
    after = scrubbed_environment(before)
    assert set(after) == {"HOME", "CUDA_VISIBLE_DEVICES", "PYTHONPATH"}
    assert after["PYTHONPATH"].endswith(os.pathsep + "/mine")
    assert after["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert scrubbed_environment(before, "7")["CUDA_VISIBLE_DEVICES"] == "7"


def test_the_worker_understands_every_option_it_is_started_with():
    options = WorkerOptions(
        backend="hf", warm_model="/m", max_model_len=99, gpu_memory_utilization=0.3,
        enforce_eager=True, eval_batch_size=5, stale_seconds=7.0,
    )  # fmt: skip
    parsed = vars(_parser().parse_args(["/run", *options.arguments(), "--worker_id", "w"]))
    expected = {name: value for name, value in vars(options).items() if name in parsed}
    assert {name: str(parsed[name]) for name in expected} == {
        name: str(value) for name, value in expected.items()
    }
    assert set(vars(options)) - set(expected) == {"cuda_visible_devices"}


def test_it_is_started_again_after_pauses_that_double_and_then_given_up(tmp_path, deaths):
    clock = Clock()
    worker = process(tmp_path, deaths, "import sys; sys.exit('no such device')", clock)
    tend_until(worker, lambda: len(deaths) == 1)
    clock.now = 9.9
    worker.tend()
    assert worker.pid is None
    clock.now = 10.0
    tend_until(worker, lambda: len(deaths) == 2)
    clock.now = 29.9
    worker.tend()
    assert worker.pid is None
    clock.now = 30.0
    tend_until(worker, lambda: len(deaths) == 3)
    assert "exit code 1: no such device; 3 times" in worker.failure
    clock.now = 1e6
    worker.tend()
    assert worker.pid is None
    assert len({name for name, _ in deaths}) == 3


def test_only_deaths_in_a_row_count(tmp_path, deaths):
    clock = Clock()
    worker = process(tmp_path, deaths, "import sys; sys.exit(1)", clock, max_deaths=2)
    for death in range(1, 5):
        clock.now += 1000
        tend_until(worker, lambda death=death: len(deaths) == death)
        assert worker.failure is None
        worker.note_progress()
    for death in (5, 6):
        clock.now += 1000
        tend_until(worker, lambda death=death: len(deaths) == death)
    assert worker.failure is not None


def test_a_program_that_cannot_be_started_is_a_failure_not_an_exception(tmp_path, deaths):
    worker = process(tmp_path, deaths, "", Clock(), max_deaths=1)
    worker._command = [str(tmp_path / "nowhere")]
    worker.tend()
    assert "cannot be started" in worker.failure


def test_stopping_closes_its_input_and_kills_what_does_not_listen(tmp_path, deaths):
    clock = Clock()
    deaf = process(tmp_path, deaths, "import time; time.sleep(60)", clock)
    deaf.tend()
    pid = deaf.pid
    deaf.stop(timeout_seconds=0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    polite = process(tmp_path, deaths, "import sys; sys.stdin.read(); sys.exit(0)", clock)
    polite.tend()
    started = time.monotonic()
    polite.stop(timeout_seconds=10)
    assert time.monotonic() - started < 5
    assert len(deaths) == 2
