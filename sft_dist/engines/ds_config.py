"""DeepSpeed's JSON: read, check against the flags that own a value, complete.

Pure: does not import deepspeed. `ds_configs/README.md` explains every key.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from sft_dist.config import TrainConfig

OWNED_BY_FLAGS = {
    "train_batch_size": "--global_batch_size",
    "train_micro_batch_size_per_gpu": "--batch_size",
    "gradient_accumulation_steps": "--gradient_accumulation_steps",
    "gradient_clipping": "--max_grad_norm",
    "bf16": "--dtype",
    "fp16": "--dtype",
    "data_types": "--dtype",
    "optimizer": "--learning_rate, --weight_decay, --adam_...",
    "scheduler": "--learning_rate, --warmup_steps",
}


def ds_config_path(name_or_path: str) -> Path:
    """`zero2` is `ds_configs/zero2.json`; anything else is a path."""
    named = Path(str(files("ds_configs") / f"{name_or_path}.json"))
    return named if named.is_file() else Path(name_or_path)


def load_ds_config(name_or_path: str) -> dict[str, Any]:
    """The settings of the file, which must exist and parse (see `ds_config_faults`)."""
    return json.loads(ds_config_path(name_or_path).read_text())


def ds_config_faults(config: TrainConfig) -> list[str]:
    """What keeps `--ds_config` from being used, each fault naming both places."""
    if config.engine.engine != "deepspeed":
        return []
    path = ds_config_path(config.engine.ds_config)
    try:
        loaded = load_ds_config(config.engine.ds_config)
    except (OSError, ValueError) as error:
        return [f"--ds_config: expected a name in ds_configs/ or a JSON file, found: {error}"]
    if not isinstance(loaded, dict):
        return [f"--ds_config {path}: expected a JSON object, found {type(loaded).__name__}"]
    faults = [
        f"{path}: {key} belongs to {flag}; remove it from the file and set the flag"
        for key, flag in OWNED_BY_FLAGS.items()
        if key in loaded
    ]
    faults += [
        f'{path}: {key} is "auto", which only Hugging Face\'s Trainer fills in; give a value'
        for key in _auto_keys(loaded)
    ]
    return faults


def complete_ds_config(
    settings: dict[str, Any], *, dtype: str, max_grad_norm: float, world_size: int
) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`: the file's settings and what the flags own.

    The accumulation is ours: DeepSpeed is told 1, and at each micro-batch whether it is the last.
    """
    bf16 = dtype == "bfloat16"
    stage = settings.get("zero_optimization", {}).get("stage", 0)
    # Without ZeRO DeepSpeed 0.19 cannot accumulate bf16 gradients in float32.
    accumulate = "fp32" if stage > 0 or not bf16 else "bf16"
    return {
        **settings,
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": accumulate},
    }


def _auto_keys(settings: Any, prefix: str = "") -> list[str]:
    if settings == "auto":
        return [prefix]
    if not isinstance(settings, dict):
        return []
    return [
        key
        for name, value in settings.items()
        for key in _auto_keys(value, f"{prefix}.{name}" if prefix else name)
    ]
