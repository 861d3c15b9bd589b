"""How a vLLM engine is set up: options, environment, which models can share one. No vLLM here."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sft_dist.config import bytes_per_weight
from sft_dist.cpu_precision import faster_dtype
from sft_dist.errors import ModelError

FORCED = {
    # In this process: progress, entropies and a prompt stop need no second protocol, and on two
    # CPU cores it decodes 89 instead of 49 tokens/s.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}
DEFAULTS = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",  # a missing file is an error now, not after retries on the hub
}
"""Set where the user has not."""

CPU_CACHE_BYTES = 2 * 2**30
"""The most that a key-value cache takes on a CPU, unless VLLM_CPU_KVCACHE_SPACE says otherwise.
vLLM's own default is a share of the host's memory, which training needs."""
CPU_CACHE_SEQUENCES, CPU_CACHE_BLOCK = 256, 128
"""What vLLM 0.32 decodes at a time there, and the tokens of a block of the cache."""

_VOLATILE = {
    "transformers_version", "_name_or_path", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id",
}  # fmt: skip


@dataclass(frozen=True)
class EngineOptions:
    """How to build the engine.

    `dtype` "auto" is the dtype on disk (vLLM's own "auto" would round float32 to 16 bits), or
    float32 on a CPU that emulates bfloat16.
    `max_model_len`: tokens of prompt and completion to make room for; requests that need more
    make the engine be built again, up to the model's own limit. None: that limit.
    """

    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.9
    enforce_eager: bool = True
    dtype: str = "auto"
    tensor_parallel: int = 1
    """Devices that share one engine."""
    reload_fault: str | None = None
    """Why weights must not be changed in place here (`self_test.py`): a new engine for each."""

    def model_len(self, config: dict[str, Any]) -> int:
        """Tokens of prompt and completion that an engine for this model has room for."""
        limit = int(config.get("max_position_embeddings", 2048))
        return min(self.max_model_len or limit, limit)

    def resolved_dtype(self, config: dict[str, Any]) -> str:
        """The dtype to ask vLLM for."""
        stored = str(config.get("dtype") or "auto").removeprefix("torch.")
        return faster_dtype(stored) if self.dtype == "auto" else self.dtype

    def engine_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """What an engine is built for: two models that are equal in it can share one."""
        return {**config, "dtype": self.resolved_dtype(config)}

    def cpu_cache_bytes(self, config: dict[str, Any]) -> int | None:
        """Key-value cache on a CPU: room for a full batch, at most `CPU_CACHE_BYTES`.

        Its pages are written when an engine is built: two GiB take a second each time. None when
        the user has set VLLM_CPU_KVCACHE_SPACE.
        """
        if os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            return None
        try:
            heads = config["num_attention_heads"]
            head_dim = config.get("head_dim") or config["hidden_size"] // heads
            per_token = config["num_hidden_layers"] * 2 * head_dim
            per_token *= config.get("num_key_value_heads") or heads
        except KeyError:  # a configuration that nests its language model
            return CPU_CACHE_BYTES
        blocks = CPU_CACHE_SEQUENCES * math.ceil(self.model_len(config) / CPU_CACHE_BLOCK)
        per_token *= bytes_per_weight(self.resolved_dtype(config))
        # One block stays empty.
        return min(CPU_CACHE_BYTES, (blocks + 1) * CPU_CACHE_BLOCK * per_token)


def prepare_environment() -> None:
    """Set the environment of this process. Call before anything imports vllm or transformers."""
    os.environ.update(FORCED)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def architecture(model_dir: Path) -> dict[str, Any]:
    """The model's configuration, without what may differ between two checkpoints of one run.

    As transformers reads it: another version may have written the base model's config.json.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_dir, local_files_only=True).to_dict()
    except (OSError, ValueError) as error:
        raise ModelError(f"expected a Hugging Face model in {model_dir}: {error}") from error
    return {name: value for name, value in config.items() if name not in _VOLATILE}
