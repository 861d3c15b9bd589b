"""Saving beside training: what is published is the step it names, and errors reach the loop."""

import errno
import hashlib
import logging
import os
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from sft_dist import saving as saving_module
from sft_dist import snapshot_files
from sft_dist.checkpoint import damage, list_checkpoints, read_training_state, snapshot
from sft_dist.config import from_flat
from sft_dist.errors import CheckpointError
from sft_dist.optimizer_state import MOMENTS, ParameterShard, load_optimizer_state
from sft_dist.runtime.distributed import Ranks
from sft_dist.saving import Saving
from tests.checkpoint.fakes import STATE, entries
from tests.fake_engine import FakeEngine, FakeTokenizer


class Gate:
    """Holds the writing of weights back until it is opened; may fail it."""

    def __init__(self, monkeypatch):
        self.open = threading.Event()
        self.entered = threading.Event()
        self.error = None
        export = snapshot_files.export_causal_lm

        def waiting(*args, **kwargs):
            self.entered.set()
            assert self.open.wait(30)
            if self.error:
                raise OSError(self.error, os.strerror(self.error))
            export(*args, **kwargs)

        monkeypatch.setattr(snapshot_files, "export_causal_lm", waiting)


@pytest.fixture
def gate(monkeypatch):
    return Gate(monkeypatch)


@pytest.fixture
def make(tmp_path):
    def build(**settings):
        found = SimpleNamespace(
            engine=FakeEngine(), submitted=[], lost=[], reading=set(), run_dir=tmp_path / "run"
        )
        found.run_dir.mkdir(exist_ok=True)
        evaluations = SimpleNamespace(submit=lambda s, d: found.submitted.append((s, d)))
        found.saving = Saving(
            from_flat({"keep_last_n_checkpoints": 0, **settings}),
            engine=found.engine, tokenizer=FakeTokenizer(), num_parameters=4,
            ranks=Ranks(0, 0, 1, torch.device("cpu")), run_dir=found.run_dir,
            evaluations=evaluations, on_lost_evaluation=found.lost.append,
        )  # fmt: skip
        return found

    return build


def state(step):
    return replace(STATE, step=step)


def checkpoint(run, step, *, evaluate=False, accuracies=None, reading=()):
    run.engine.steps = step
    known = (set(reading), accuracies or {})
    run.saving.checkpoint(state(step), evaluate=evaluate, known=lambda: known)


def stored_steps(path):
    """The step that each part of a checkpoint is of."""
    shard = ParameterShard(0, 4, torch.empty(4), {k: torch.empty(4) for k in MOMENTS})
    adam_step = load_optimizer_state(path / "engine", {"w": shard})
    weights = load_file(path / "model.safetensors")["model.weight"]
    parts = [weights, shard.master, *shard.moments.values()]
    found = {float(value) for part in parts for value in part}
    return found | {adam_step, read_training_state(path).step}


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_checkpoint_is_the_state_of_the_step_it_names(make, gate, asynchronous):
    run = make(async_save=asynchronous)
    if not asynchronous:
        gate.open.set()
    checkpoint(run, 3)
    run.engine.steps = 4  # training goes on while it is written
    gate.open.set()
    run.saving.finish()
    path = run.run_dir / "checkpoint-3"
    assert damage(path) == []
    assert stored_steps(path) == {3.0}


def test_training_does_not_wait_for_the_disk(make, gate):
    run = make()
    checkpoint(run, 3)
    assert gate.entered.wait(30)
    assert entries(run.run_dir) == [".tmp-checkpoint-3"]
    gate.open.set()
    run.saving.finish()
    assert entries(run.run_dir) == ["checkpoint-3"]


def test_no_checksum_and_no_fsync_runs_on_the_training_thread(make, monkeypatch):
    run = make()
    threads = set()
    fsync, digest = os.fsync, hashlib.file_digest

    def recorded_fsync(descriptor):
        threads.add(threading.current_thread())
        fsync(descriptor)

    def recorded_digest(*args):
        threads.add(threading.current_thread())
        return digest(*args)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(hashlib, "file_digest", recorded_digest)
    checkpoint(run, 3, evaluate=True)
    run.saving.finish()
    run.saving.export(state(4))
    run.saving.finish()
    assert threads
    assert threading.main_thread() not in threads


def test_the_next_save_waits_for_the_former_and_says_so(make, gate, caplog):
    run = make()
    caplog.set_level(logging.INFO)
    checkpoint(run, 3)
    assert gate.entered.wait(30)
    threading.Timer(0.3, gate.open.set).start()
    checkpoint(run, 6)
    assert "saving checkpoint-6 waits until checkpoint-3 is written" in caplog.text
    assert run.saving.stall_seconds >= 0.2
    run.saving.finish()
    assert [stored_steps(p) for p in list_checkpoints(run.run_dir)] == [{3.0}, {6.0}]


def test_the_memory_of_a_copy_is_used_again(make):
    run = make()
    taken = set()
    for step in (1, 2, 3):
        checkpoint(run, step)
        run.saving.finish()
        taken.add(run.saving._memory.nbytes)
    assert len(taken) == 1


def test_where_a_host_has_no_room_for_a_copy_training_waits(make, monkeypatch, caplog):
    monkeypatch.setattr(snapshot, "fits_in_host_memory", lambda nbytes: False)
    run = make()
    checkpoint(run, 3)
    assert damage(run.run_dir / "checkpoint-3") == []
    assert "--async_save" in caplog.text


def test_a_step_is_saved_once(make, caplog):
    run = make()
    caplog.set_level(logging.INFO)
    for _ in range(2):
        checkpoint(run, 3)
    run.saving.finish()
    assert caplog.text.count("written in") == 1


# Evaluations


def test_a_checkpoint_is_submitted_when_it_is_published_and_not_before(make, gate):
    run = make()
    checkpoint(run, 3, evaluate=True)
    assert gate.entered.wait(30)
    run.saving.poll()
    assert run.submitted == []
    gate.open.set()
    run.saving._background._thread.join()
    run.saving.poll()
    ((step, model_dir),) = run.submitted
    assert step == 3
    assert entries(model_dir) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip


def test_the_optimizer_state_goes_before_the_evaluation_ends_and_the_weights_stay(make):
    run = make(keep_last_n_checkpoints=1, keep_best=False)
    checkpoint(run, 3, evaluate=True)
    checkpoint(run, 6, reading={3})
    checkpoint(run, 9, reading={3})
    run.saving.finish()
    assert entries(run.run_dir) == [".exports", "checkpoint-9"]
    ((_, model_dir),) = run.submitted
    assert float(load_file(model_dir / "model.safetensors")["model.weight"][0]) == 3


def test_an_evaluation_that_comes_in_late_can_still_find_the_best(make):
    run = make(keep_last_n_checkpoints=1)
    checkpoint(run, 3, evaluate=True)
    checkpoint(run, 6, reading={3})
    checkpoint(run, 9, reading={3})
    run.saving.finish()
    assert entries(run.run_dir) == [".exports", "checkpoint-9", "weights-3"]
    run.saving.tidy(set(), {3: 0.9, 9: 0.1})
    assert "weights-3" in entries(run.run_dir)
    run.saving.tidy(set(), {3: 0.1, 9: 0.9})
    assert "weights-3" not in entries(run.run_dir)


def test_without_hard_links_the_checkpoint_is_read_in_place_and_kept(make, monkeypatch):
    monkeypatch.setattr(saving_module, "share_weights", lambda checkpoint, directory: False)
    run = make(keep_last_n_checkpoints=1, keep_best=False)
    checkpoint(run, 3, evaluate=True)
    checkpoint(run, 6, reading={3})
    run.saving.finish()
    assert run.submitted == [(3, run.run_dir / "checkpoint-3")]
    assert entries(run.run_dir) == ["checkpoint-3", "checkpoint-6"]


@pytest.mark.parametrize("links", [True, False])
def test_what_the_former_save_had_evaluated_is_spared_by_the_next(make, monkeypatch, links):
    """Its evaluation is asked for only now, when the former save is found to be published."""
    if not links:
        monkeypatch.setattr(saving_module, "share_weights", lambda checkpoint, directory: False)
    run = make(keep_last_n_checkpoints=1)
    checkpoint(run, 3, evaluate=True)
    run.saving.checkpoint(
        state(6), evaluate=False, known=lambda: ({step for step, _ in run.submitted}, {})
    )
    run.saving.finish()
    assert ("weights-3" if links else "checkpoint-3") in entries(run.run_dir)


def test_weights_between_two_checkpoints_are_written_beside_training_too(make, gate):
    run = make()
    run.engine.steps = 5
    run.saving.export(state(5))
    run.engine.steps = 6
    assert run.submitted == []
    gate.open.set()
    run.saving.finish()
    ((step, model_dir),) = run.submitted
    assert (step, model_dir.name) == (5, "step-000005-attempt-1")
    assert float(load_file(model_dir / "model.safetensors")["model.weight"][0]) == 5
    assert list_checkpoints(run.run_dir) == []


def test_weights_of_a_step_reached_again_get_another_name(make):
    for _ in range(2):
        run = make()
        run.saving.export(state(5))
        run.saving.finish()
    assert entries(run.run_dir / ".exports") == ["step-000005-attempt-1", "step-000005-attempt-1.1"]


# Errors


def fail_next(run, gate, step, code=errno.ENOSPC, **settings):
    gate.error = code
    gate.open.set()
    checkpoint(run, step, **settings)
    if run.saving._background._thread is not None:
        run.saving._background._thread.join()
    gate.error = None


@pytest.mark.parametrize("asynchronous", [True, False])
def test_an_error_is_known_without_waiting_and_stops_the_run(make, gate, asynchronous):
    run = make(async_save=asynchronous)
    assert not run.saving.has_failed()
    fail_next(run, gate, 3)
    assert run.saving.has_failed()
    run.saving.poll()  # leaves it to all ranks together
    with pytest.raises(CheckpointError, match=r"checkpoint-3 .*No space left on device"):
        run.saving.settle()
    assert entries(run.run_dir) == []
    assert not run.saving.has_failed()


def test_training_goes_on_when_it_is_told_to_and_the_next_save_is_tried(make, gate, caplog):
    run = make(on_save_error="continue")
    fail_next(run, gate, 3, evaluate=True)
    run.saving.settle()
    assert "No space left on device" in caplog.text
    assert "Training goes on" in caplog.text
    assert run.lost == [3]
    checkpoint(run, 3)  # the same step may be asked for again
    run.saving.finish()
    assert stored_steps(run.run_dir / "checkpoint-3") == {3.0}


def test_a_last_save_that_failed_fails_the_run_even_so(make, gate):
    run = make(on_save_error="continue")
    checkpoint(run, 3)
    gate.open.set()
    run.saving.settle()
    fail_next(run, gate, 6)
    with pytest.raises(CheckpointError, match="checkpoint-6"):
        run.saving.finish()
    assert entries(run.run_dir) == ["checkpoint-3"]


def test_an_error_of_the_former_save_comes_up_at_the_next(make, gate):
    run = make()
    fail_next(run, gate, 3, code=errno.EACCES)
    with pytest.raises(CheckpointError, match="Permission denied"):
        checkpoint(run, 6)


def test_weights_that_cannot_be_written_lose_their_evaluation_alone(make, gate):
    run = make(on_save_error="continue")
    gate.error = errno.ENOSPC
    gate.open.set()
    run.saving.export(state(5))
    run.saving.finish()
    assert (run.lost, run.submitted) == ([5], [])
    assert entries(run.run_dir / ".exports") == []


def test_after_an_error_of_training_the_save_under_way_may_end(make, gate):
    run = make()
    checkpoint(run, 3, evaluate=True)
    threading.Timer(0.2, gate.open.set).start()
    run.saving.close(30)
    assert entries(run.run_dir) == [".exports", "checkpoint-3"]
    assert [step for step, _ in run.submitted] == [3]


def test_it_is_waited_for_so_long_and_no_longer(make, gate):
    run = make()
    checkpoint(run, 3)
    run.saving.close(0.05)
    assert entries(run.run_dir) == [".tmp-checkpoint-3"]
    gate.open.set()
    run.saving._background._thread.join()
