"""Serving a run from outside: real worker processes, a trainer that lives, dies and comes back."""

import sys
import threading
import time

import pytest

from sft_dist.errors import EvaluationError
from sft_dist.evaluation.client import EvaluationClient
from sft_dist.evaluation.queue import EvaluationQueue
from sft_dist.evaluation.request import Sampling
from sft_dist.evaluation.server import FINISHED, IDLE, EvaluationServer
from sft_dist.evaluation.worker_process import WorkerOptions, WorkerProcess
from tests.evaluation.models import problems, save_weights

STALE_SECONDS = 3.0  # signs of life come 24 times as often
FAKE_WORKER = (sys.executable, "-m", "tests.evaluation.fake_worker")


class Site:
    """A run directory with what happens around it."""

    def __init__(self, tmp_path):
        self.run_dir = tmp_path / "run"
        self.models = tmp_path
        self.rows = []
        self.over = False
        self.clients = []

    def trainer(self, **options):
        client = EvaluationClient(
            self.run_dir, options=WorkerOptions(backend="hf"), own_worker=False,
            grading_workers=1, watch_seconds=0.05, stale_seconds=STALE_SECONDS, **options,
        )  # fmt: skip
        client.start()
        self.clients.append(client)
        return client

    def submit(self, client, step):
        client.submit(
            step=step,
            model_dir=save_weights(self.models / f"m{step}", float(step)),
            problems=problems(3),
            prompt_name="default",
            form="boxed",
            sampling=Sampling(max_new_tokens=8),
        )
        deadline = time.monotonic() + 10
        while step not in {q.request.step for q in EvaluationQueue(self.run_dir).requests()}:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def server(self, command=FAKE_WORKER, idle_seconds=60.0):
        options = WorkerOptions(backend="hf")
        worker = WorkerProcess(
            self.run_dir, options, command=command, max_deaths=2, first_pause_seconds=0.01,
            on_death=EvaluationQueue(self.run_dir).abandon,
        )  # fmt: skip
        return EvaluationServer(
            self.run_dir, record=self.rows.append, run_is_over=lambda: self.over,
            options=options, worker=worker, idle_seconds=idle_seconds,
            stale_seconds=STALE_SECONDS, pause_seconds=0.05,
        )  # fmt: skip

    def steps(self):
        return sorted(row["eval/step"] for row in self.rows)


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    for client in site.clients:
        client.close()


def kill(client):
    """End a client as a kill would: nothing confirmed, nothing released."""
    client._closing = True
    client._thread.join()
    client._lease._done.set()


def test_what_a_trainer_left_is_generated_graded_and_recorded(site):
    trainer = site.trainer()
    for step in (0, 5, 9):
        site.submit(trainer, step)
    kill(trainer)
    site.over = True
    assert site.server().run() == FINISHED
    assert site.steps() == [0, 5, 9]
    assert {row["eval/accuracy"] for row in site.rows} == {1.0}
    assert site.rows[0]["eval/prompt"] == "default"


def test_a_trainer_that_lives_gets_the_results_itself(site):
    trainer = site.trainer()
    site.submit(trainer, 5)
    server = site.server()
    thread = threading.Thread(target=server.run)
    thread.start()
    (result,) = trainer.drain(30)
    assert result.error is None
    trainer.close()  # confirms: the result is in its record
    site.over = True
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert site.rows == []


def test_two_servers_share_the_work_and_record_each_result_once(site):
    trainer = site.trainer()
    for step in range(8):
        site.submit(trainer, step)
    kill(trainer)
    site.over = True
    threads = [threading.Thread(target=site.server().run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert site.steps() == list(range(8))


def test_a_trainer_that_comes_back_gets_what_a_server_recorded_for_its_other_views(site):
    first = site.trainer()
    site.submit(first, 5)
    kill(first)
    site.over = True
    site.server().run()
    second = site.trainer()
    (result,) = second.drain(20)
    assert (result.step, result.row) == (5, site.rows[0])
    second.close()
    assert list(site.trainer().drain(5)) == []


def test_a_checkpoint_that_is_gone_is_told_and_does_not_hold_the_server(site, caplog):
    trainer = site.trainer()
    site.submit(trainer, 5)
    kill(trainer)
    (site.models / "m5" / "model.safetensors").unlink()
    (site.models / "m5").rmdir()
    site.over = True
    assert site.server().run() == FINISHED
    assert "evaluation of step 5 failed" in caplog.text
    assert site.rows == []


def test_without_work_the_server_leaves(site):
    assert site.server(idle_seconds=0.3).run() == IDLE


def test_a_worker_that_cannot_live_ends_the_server_with_its_reason(site):
    trainer = site.trainer()
    site.submit(trainer, 5)
    server = site.server(command=(sys.executable, "-c", "import sys; sys.exit('no such engine')"))
    with pytest.raises(EvaluationError, match="no such engine"):
        server.run()
