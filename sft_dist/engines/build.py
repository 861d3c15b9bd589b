"""The engine that `--engine` names, around the model in a directory."""

import logging
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from sft_dist.attention import resolve_attention
from sft_dist.config import TrainConfig
from sft_dist.cpu_allocator import keep_freed_memory
from sft_dist.cpu_precision import slow_dtype_advice
from sft_dist.engines.ds_config import ds_config_path, load_ds_config
from sft_dist.engines.protocol import Engine
from sft_dist.model import export_generation_config, load_causal_lm

logger = logging.getLogger(__name__)


def load_model(
    config: TrainConfig, model_dir: Path, *, device: torch.device, stop_token_id: int
) -> nn.Module:
    """The causal LM with the attention that suits `device`, on the CPU.

    Args:
        config: the run's settings.
        model_dir: the base model, or the checkpoint that is resumed.
        device: of this rank.
        stop_token_id: written into the generation configuration of every export.
    """
    attention, reason = resolve_attention(
        config.model.attention,
        cuda=device.type == "cuda",
        flash_attn_installed=find_spec("flash_attn") is not None,
    )
    logger.info("attention: %s (%s)", attention, reason)
    if device.type == "cpu":
        keep_freed_memory()
    advice = slow_dtype_advice(config.model.dtype)
    if advice is not None:
        logger.warning("%s", advice)
    model = load_causal_lm(
        str(model_dir),
        dtype=config.model.dtype,
        attention=attention,
        activation_checkpointing=config.model.activation_checkpointing,
        compiled=config.model.compile,
    )
    export_generation_config(model, stop_token_id)
    return model


def build_engine(config: TrainConfig, model: nn.Module, *, device: torch.device) -> Engine:
    """The engine that `config` names, around the model. Collective."""
    wrap = {"torch": _torch_engine, "fsdp": _fsdp_engine, "deepspeed": _deepspeed_engine}
    return wrap[config.engine.engine](model, config, device)


def _torch_engine(model: nn.Module, config: TrainConfig, device: torch.device) -> Engine:
    from sft_dist.engines.torch_engine import TorchEngine

    return TorchEngine(model, config.optimizer, device=device)


def _fsdp_engine(model: nn.Module, config: TrainConfig, device: torch.device) -> Engine:
    from sft_dist.engines.fsdp_engine import FsdpEngine, fits_whole

    whole = fits_whole(model, device)
    mode = "once a step" if whole else "in every micro-batch, to save memory"
    logger.info("FSDP2: weights are gathered and gradients reduced %s", mode)
    return FsdpEngine(model, config.optimizer, device=device, whole_in_step=whole)


def _deepspeed_engine(model: nn.Module, config: TrainConfig, device: torch.device) -> Engine:
    from sft_dist.engines.deepspeed_engine import DeepSpeedEngine

    ds_settings = load_ds_config(config.engine.ds_config)
    stage = ds_settings.get("zero_optimization", {}).get("stage", 0)
    logger.info("DeepSpeed ZeRO-%d from %s", stage, ds_config_path(config.engine.ds_config))
    if stage == 0 and config.model.dtype == "bfloat16":
        logger.warning("ZeRO-0 accumulates bf16 gradients in bf16; stages 1 to 3 use float32")
    return DeepSpeedEngine(
        model,
        config.optimizer,
        ds_settings=ds_settings,
        dtype=config.model.dtype,
        device=device,
    )
