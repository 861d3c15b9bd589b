"""Load the model and its tokenizer; attention that stays inside each example of a packed row."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sft_dist.data.packing import MicroBatch
from sft_dist.errors import ModelError
from sft_dist.loss import LossHead, TokenScores

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
PER_EXAMPLE_SDPA = "sft_per_example_sdpa"


class TokenScorer(nn.Module):
    """Micro-batch in, scores of its target tokens out: the one module an engine wraps."""

    def __init__(self, causal_lm: nn.Module) -> None:
        super().__init__()
        causal_lm.set_output_embeddings(LossHead.sharing(causal_lm.get_output_embeddings()))
        self.causal_lm = causal_lm

    def forward(self, batch: MicroBatch) -> TokenScores:
        """Scores (N,) of the micro-batch's target tokens."""
        # No cache and no attention_mask: with either, transformers takes the packed row for one
        # sequence and examples see one another (transformers 5.19, masking_utils.py).
        output = self.causal_lm.base_model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            cu_seq_lens_q=batch.cu_seqlens,
            cu_seq_lens_k=batch.cu_seqlens,
            max_length_q=max(batch.lengths),
            max_length_k=max(batch.lengths),
            **self._attention_arguments(batch),
        )
        hidden = output.last_hidden_state[0, batch.target_positions]
        return self.causal_lm.get_output_embeddings()(hidden, batch.target_ids)

    def _attention_arguments(self, batch: MicroBatch) -> dict[str, Any]:
        own = self.causal_lm.config._attn_implementation == PER_EXAMPLE_SDPA
        return {"example_lengths": batch.lengths} if own else {}


def local_model_dir(model_path: str) -> Path:
    """The directory of a model; one named by a Hub id is downloaded (once, to the Hub's cache).

    Raises:
        ModelError: when it cannot be had.
    """
    if Path(model_path).is_dir():
        return Path(model_path)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model_path, ignore_patterns=["*.pth", "*.gguf", "*.onnx"]))
    except Exception as error:
        raise ModelError(
            f"--model_path {model_path}: no such directory, and it cannot be had from the Hub "
            f"({error}); give the directory of a downloaded model"
        ) from error


def load_tokenizer(model_path: str) -> Any:
    """The tokenizer beside the model.

    Raises:
        ModelError: when there is none that loads.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_path)
    except Exception as error:
        raise ModelError(
            f"expected a tokenizer at {model_path}, found: {error}; --model_path must hold "
            "tokenizer.json or tokenizer_config.json beside the weights"
        ) from error


def load_causal_lm(
    model_path: str, *, dtype: str, attention: str, activation_checkpointing: bool = False
) -> nn.Module:
    """The causal LM in training mode, on the CPU.

    Args:
        model_path: directory or Hub id.
        dtype: a key of `DTYPES`.
        attention: resolved name, see `resolve_attention`.
        activation_checkpointing: recompute each layer's activations in the backward pass.

    Raises:
        ModelError: saying what was missing.
    """
    from transformers import AutoModelForCausalLM

    _register_per_example_sdpa()
    implementation = PER_EXAMPLE_SDPA if attention == "sdpa" else attention
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            model_path,
            dtype=DTYPES[dtype],
            attn_implementation=implementation,
            output_loading_info=True,
        )
    except Exception as error:
        raise ModelError(f"expected a causal LM at {model_path}, found: {error}") from error
    if missing := sorted(loading["missing_keys"]):  # transformers would draw them at random
        raise ModelError(
            f"expected all weights in {model_path}, {len(missing)} are missing: "
            f"{', '.join(missing[:5])}; is the download complete, the architecture the right one?"
        )
    if activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def resolve_attention(requested: str, *, cuda: bool, flash_attn_installed: bool) -> tuple[str, str]:
    """The attention kernel to use, and why, in words."""
    if requested != "auto":
        return requested, "asked for"
    if cuda and flash_attn_installed:
        return "flash_attention_2", "CUDA and flash-attn are there"
    missing = "flash-attn is not installed" if cuda else "no CUDA device"
    return "sdpa", f"{missing}; per example, so nothing is computed across examples"


def stop_token_id(model_path: str, tokenizer: Any) -> int:
    """The id at which generation stops, and with which every training target ends.

    From the model's generation config (its first id, when it lists several), else the tokenizer's.
    Base and chat models differ in it.

    Raises:
        ModelError: when neither names one.
    """
    from transformers import GenerationConfig

    try:
        eos = GenerationConfig.from_pretrained(model_path).eos_token_id
    except OSError:
        eos = None
    if isinstance(eos, list):
        eos = eos[0] if eos else None
    if eos is None:
        eos = tokenizer.eos_token_id
    if eos is None:
        raise ModelError(
            f"{model_path}: expected eos_token_id in generation_config.json or an eos_token of the "
            "tokenizer, found neither; generation would never stop"
        )
    return int(eos)


def export_generation_config(model: nn.Module, stop_id: int) -> None:
    """Make the exported model stop at the id it was trained to stop at, and decode greedily."""
    from transformers import GenerationConfig

    old = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=old.bos_token_id, pad_token_id=old.pad_token_id, eos_token_id=stop_id
    )


def export_causal_lm(
    model: nn.Module, state_dict: dict[str, Tensor], directory: Path, *, weights_format: str
) -> None:
    """Write a Hugging Face model directory: configuration, generation configuration, weights.

    Args:
        model: the causal LM the weights belong to.
        state_dict: full tensors by Hugging Face name.
        directory: written into.
        weights_format: safetensors, or bin for `pytorch_model.bin`.
    """
    if weights_format == "safetensors":
        model.save_pretrained(directory, state_dict=state_dict, max_shard_size="100GB")
        return
    model.config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)
    torch.save(state_dict, directory / "pytorch_model.bin")


def _register_per_example_sdpa() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PER_EXAMPLE_SDPA, _per_example_sdpa)
    AttentionMaskInterface.register(PER_EXAMPLE_SDPA, lambda *args, **kwargs: None)


def _per_example_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    example_lengths: tuple[int, ...],
    **unused: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each example of a packed row alone.

    A mask over the row would cost T^2; this costs the sum of the squares. Shapes: query
    (1, H, T, d), key and value (1, G, T, d) -> (1, T, H, d).
    """
    groups = query.shape[1] // key.shape[1]
    # Repeated by hand: with enable_gqa torch 2.13 leaves its CPU flash kernel.
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    parts = [
        nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        for q, k, v in zip(*(x.split(example_lengths, 2) for x in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None
