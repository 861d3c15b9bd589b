"""Which GPUs are kept for evaluation; names only, no GPU."""

import pytest

from sft_dist import preparation
from sft_dist.errors import ConfigError
from sft_dist.evaluate import evaluate_faults
from sft_dist.evaluation.placement import reserved_devices, reserved_fault, visible_devices
from sft_dist.evaluation.worker_group import worker_group
from sft_dist.evaluation.worker_process import WorkerOptions


@pytest.mark.parametrize(
    ("variable", "count", "expected"),
    [
        (None, 3, ["0", "1", "2"]),
        ("4,5,6,7", 4, ["4", "5", "6", "7"]),
        ("GPU-8f1c, GPU-22aa", 2, ["GPU-8f1c", "GPU-22aa"]),
        ("0,-1,2", 1, ["0"]),
        ("", 0, []),
        (None, 0, []),
    ],
)
def test_the_visible_gpus_are_those_that_cuda_would_see(variable, count, expected):
    assert visible_devices(variable, count) == expected


def test_the_last_gpus_are_reserved_because_ranks_take_the_first():
    assert reserved_devices(["4", "5", "6", "7"], 1) == ["7"]
    assert reserved_devices(["4", "5", "6", "7"], 2) == ["6", "7"]


def test_a_gpu_with_a_rank_cannot_be_reserved():
    eight = [str(number) for number in range(8)]
    assert reserved_fault(eight, ranks=7, wanted=1) is None
    assert reserved_fault(eight, ranks=6, wanted=2) is None
    fault = reserved_fault(eight, ranks=8, wanted=1)
    assert "--eval_placement reserved" in fault
    assert "start 7" in fault


def test_without_gpus_there_is_nothing_to_reserve():
    assert "take shared" in reserved_fault([], ranks=1, wanted=1)


def test_each_reserved_gpu_has_a_worker_with_a_log_of_its_own(tmp_path):
    group = worker_group(tmp_path, WorkerOptions(), ["6", "7"], log_name="evaluation_worker")
    assert [w._options.cuda_visible_devices for w in group._workers] == ["6", "7"]
    assert len({w._log_path for w in group._workers}) == 2
    assert group.failure is None


def test_engines_that_several_gpus_share_get_them_in_order(tmp_path):
    options = WorkerOptions(tensor_parallel=2)
    group = worker_group(tmp_path, options, ["4", "5", "6", "7"], log_name="w")
    assert [w._options.cuda_visible_devices for w in group._workers] == ["4,5", "6,7"]
    assert "--tensor_parallel=2" in group._workers[0]._options.arguments()


def test_a_group_is_given_up_when_all_of_it_is(tmp_path):
    group = worker_group(tmp_path, WorkerOptions(), ["6", "7"], log_name="w")
    group._workers[0].failure = "no device"
    assert group.failure is None
    group._workers[1].failure = "none here either"
    assert group.failure == "no device"


def test_the_trainer_refuses_a_reserved_gpu_with_a_rank_on_the_node_of_rank_0_only(
    monkeypatch, configured
):
    config = configured(eval_placement="reserved")
    monkeypatch.setattr(preparation, "gpus", lambda: ["0", "1"])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="start 1"):
        preparation._refuse_placement(config)
    monkeypatch.setenv("GROUP_RANK", "1")
    preparation._refuse_placement(config)
    monkeypatch.setenv("GROUP_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    preparation._refuse_placement(config)


@pytest.mark.parametrize("placement", ["off", "external", "reserved"])
def test_placements_that_need_a_trainer_are_faults_of_sft_evaluate(configured, placement):
    (fault,) = evaluate_faults(configured(eval_placement=placement))
    assert f"--eval_placement {placement}" in fault
    assert evaluate_faults(configured()) == []
