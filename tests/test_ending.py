"""How a run says that it has ended."""

import json
from types import SimpleNamespace

import pytest
import torch

from sft_dist import ending
from sft_dist.ending import finish
from sft_dist.errors import OutOfMemoryError, RanksError
from sft_dist.runtime.distributed import Ranks

STEPS = 4


class Evaluations:
    """One evaluation is open; its result comes when `arrives`."""

    def __init__(self, arrives):
        self.reading, self.arrives = {STEPS}, arrives

    def drain(self, until):
        while self.reading and not until():
            if self.arrives:
                self.reading.clear()
                yield SimpleNamespace(step=STEPS)

    def steps_reading(self):
        return self.reading

    def close(self):
        pass


def ended(run_dir, *, step=STEPS, arrives=True, asked=None, seconds=60):
    """`status.json` of a run that leaves its loop at `step`; `asked` comes while it waits."""
    nothing = SimpleNamespace(close=lambda: None, finish=lambda: None, tidy=lambda *_: None)
    loop = SimpleNamespace(
        plan=SimpleNamespace(total_steps=STEPS),
        config=SimpleNamespace(evaluation=SimpleNamespace(eval_drain_timeout=seconds)),
        evaluations=Evaluations(arrives),
        failed_evaluations=[],
        accuracies={},
        report=lambda results: None,
        saving=nothing,
        tracker=nothing,
        page=nothing,
    )
    stop = SimpleNamespace(requested=lambda: asked is not None, reason=asked)
    finish(loop, SimpleNamespace(step=step), run_dir, stop)
    return json.loads((run_dir / "status.json").read_text())


def test_all_steps_and_all_evaluations_done_is_finished(tmp_path):
    status = ended(tmp_path)
    assert (status["state"], status["unscored"]) == ("finished", [])


def test_a_stop_before_the_last_step_is_to_be_continued(tmp_path):
    status = ended(tmp_path, step=2, asked="SIGUSR1")
    assert (status["state"], status["reason"]) == ("requeue", "SIGUSR1")


def test_a_stop_while_evaluations_are_open_is_to_be_continued(tmp_path):
    status = ended(tmp_path, arrives=False, asked="SIGTERM")
    assert (status["state"], status["reason"]) == ("requeue", "SIGTERM")


def test_an_evaluation_that_does_not_come_in_time_is_named(tmp_path):
    status = ended(tmp_path, arrives=False, seconds=0)
    assert (status["state"], status["unscored"]) == ("finished", [STEPS])


# fail


class Launcher:
    """What `fail` did, in order."""

    def __init__(self, monkeypatch, run_dir):
        self.calls, self.run_dir = [], run_dir
        monkeypatch.setattr(ending, "tell_launcher", lambda e: self.calls.append(f"told: {e}"))
        monkeypatch.setattr(ending, "write_report", lambda _: self.calls.append("report"))
        monkeypatch.setattr(ending.time, "sleep", lambda s: self.calls.append(f"{s:.1f} s pass"))
        self.watch = SimpleNamespace(
            stop=lambda: self.calls.append("watch stopped"),
            tell_failure=lambda text: self.calls.append(f"to ranks: {text}"),
            others_failure=lambda: "rank 2: OSError: no space",
            verdict=None,
            where=lambda: "step 5, computing",
        )

    def fail(self, error, config, *, rank=0, opened=True):
        ranks = Ranks(rank, rank, 3, torch.device("cpu"))
        run_dir = self.run_dir if opened else None
        return ending.fail(error, config, ranks, self.watch, run_dir=run_dir, loop=None)


@pytest.fixture
def launcher(monkeypatch, tmp_path):
    return Launcher(monkeypatch, tmp_path)


def status_of(run_dir):
    return json.loads((run_dir / "status.json").read_text())


def test_who_fails_by_its_own_error_says_so_before_it_cleans_up(launcher, configured):
    error = ValueError("bad sample")
    assert launcher.fail(error, configured()) is error
    assert launcher.calls == [
        "watch stopped", "told: bad sample", "to ranks: ValueError: bad sample", "report",
    ]  # fmt: skip
    assert status_of(launcher.run_dir)["reason"] == "ValueError: bad sample"


def test_who_loses_the_others_tells_what_they_told_and_lets_them_be_first(launcher, configured):
    (launcher.run_dir / "checkpoint-4").mkdir()
    error = RuntimeError("[third_party/gloo/pair.cc] Connection closed by peer")
    shown = launcher.fail(error, configured())
    assert isinstance(shown, RanksError)
    assert "step 5, computing: another rank has failed. rank 2: OSError: no space" in str(shown)
    assert "checkpoint-4" in str(shown)
    assert "--resume_from_checkpoint latest" in str(shown)
    # More than one second: torchrun compares whole ones, and shows the lower rank's of equals.
    assert launcher.calls == ["watch stopped", "report", "1.1 s pass"]
    assert status_of(launcher.run_dir)["state"] == "failed"


def test_memory_that_ran_out_outside_a_step_is_told_with_what_to_lower(launcher, configured):
    shown = launcher.fail(torch.OutOfMemoryError("CUDA out of memory"), configured())
    assert isinstance(shown, OutOfMemoryError)
    assert "step 5, computing" in str(shown)
    assert "--activation_checkpointing" in str(shown)


def test_a_run_that_never_had_its_directory_writes_nothing_into_it(launcher, configured):
    launcher.fail(RuntimeError("gloo timeout"), configured(), opened=False)
    launcher.fail(ValueError("bad"), configured(), rank=1)
    assert list(launcher.run_dir.iterdir()) == []


def test_a_process_that_waits_for_ever_ends_with_the_verdict(launcher, configured, capsys):
    launcher.watch.verdict = "rank 0 has not moved: no sign of life of rank 1"
    ending.end_stuck(launcher.watch, Ranks(0, 0, 3, torch.device("cpu")), launcher.run_dir)
    assert "no sign of life of rank 1" in status_of(launcher.run_dir)["reason"]
    assert "rank 0: error: rank 0 has not moved" in capsys.readouterr().err
    assert launcher.calls[0].startswith("told: rank 0 has not moved")
