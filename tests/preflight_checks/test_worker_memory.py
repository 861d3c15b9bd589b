"""What a CPU's evaluation worker leaves to training."""

import pytest

from sft_dist.config import from_flat
from sft_dist.evaluation.engine_options import EngineOptions, architecture
from sft_dist.preflight_checks import memory
from sft_dist.preflight_checks.memory import WORKER_LIBRARIES, available_memory, worker_memory
from tests.evaluation.models import save_model

PARAMETERS = 10**9


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(memory.torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), seed=1)


def configured(**flags):
    return from_flat({"model_path": "m", "data_path": "o/d", **flags})


def test_a_vllm_worker_takes_its_libraries_its_cache_and_the_weights_twice_and_more(model):
    cache = EngineOptions().cpu_cache_bytes(architecture(model))
    found = worker_memory(configured(), model, PARAMETERS) - WORKER_LIBRARIES - cache
    assert 2 < found / (4 * PARAMETERS) < 3


def test_transformers_keeps_the_weights_once(model):
    found = worker_memory(configured(eval_backend="hf"), model, PARAMETERS)
    assert found == WORKER_LIBRARIES + 4 * PARAMETERS


@pytest.mark.parametrize("placement", ["off", "after", "external"])
def test_no_worker_beside_training_takes_nothing(model, placement):
    assert worker_memory(configured(eval_placement=placement), model, PARAMETERS) == 0


def test_ranks_share_what_the_worker_leaves():
    free = available_memory(configured())
    less = available_memory(configured(), worker=2 * 2**30)
    assert free - less == pytest.approx(2**30, abs=2**28)  # of other processes, meanwhile
