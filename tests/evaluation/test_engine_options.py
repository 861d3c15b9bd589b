"""How large a CPU's key-value cache is, and which models one engine can serve."""

import pytest

from sft_dist.evaluation import engine_options
from sft_dist.evaluation.engine_options import CPU_CACHE_BYTES, EngineOptions

SMALL = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 128,
    "max_position_embeddings": 512, "dtype": "float32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)


def test_the_cache_has_room_for_a_full_batch_and_little_more():
    needed = 256 * 384 * (2 * 2 * 2 * 32) * 4  # 300 tokens take three blocks of 128
    found = EngineOptions(max_model_len=300).cpu_cache_bytes(SMALL)
    assert needed < found < 1.01 * needed


def test_an_emulated_type_is_computed_and_cached_in_float32(monkeypatch):
    monkeypatch.setattr(engine_options, "faster_dtype", lambda dtype: dtype)
    narrow = EngineOptions().cpu_cache_bytes({**SMALL, "dtype": "bfloat16"})
    assert 2 * narrow == EngineOptions().cpu_cache_bytes(SMALL)
    monkeypatch.setattr(engine_options, "faster_dtype", lambda dtype: "float32")
    assert EngineOptions().cpu_cache_bytes({**SMALL, "dtype": "bfloat16"}) == 2 * narrow


def test_a_large_model_gets_no_more_than_the_limit():
    large = {**SMALL, "num_hidden_layers": 28, "hidden_size": 1536, "max_position_embeddings": 4096}
    assert EngineOptions().cpu_cache_bytes(large) == CPU_CACHE_BYTES


def test_what_cannot_be_computed_gets_the_limit():
    assert EngineOptions().cpu_cache_bytes({"text_config": SMALL}) == CPU_CACHE_BYTES


def test_the_users_choice_is_left_to_vllm(monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    assert EngineOptions().cpu_cache_bytes(SMALL) is None


def test_models_stored_in_two_types_and_computed_in_one_share_an_engine(monkeypatch):
    models = [{**SMALL, "dtype": dtype} for dtype in ("bfloat16", "float32")]
    monkeypatch.setattr(engine_options, "faster_dtype", lambda dtype: "float32")
    first, second = map(EngineOptions().engine_config, models)
    assert first == second
    monkeypatch.setattr(engine_options, "faster_dtype", lambda dtype: dtype)
    first, second = map(EngineOptions().engine_config, models)
    assert first != second
