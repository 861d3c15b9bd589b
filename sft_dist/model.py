"""The model in a directory: load it, score a micro-batch with it, write it back."""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sft_dist.attention import REGISTERED, attention_arguments, register_attentions
from sft_dist.data.packing import MicroBatch
from sft_dist.errors import ModelError
from sft_dist.garbage import collector_paused
from sft_dist.lean_layers import make_lean
from sft_dist.loss import LossHead, TokenScores
from sft_dist.paths import near_path

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class TokenScorer(nn.Module):
    """Micro-batch in, scores of its target tokens out: the one module an engine wraps."""

    def __init__(self, causal_lm: nn.Module, *, lean: bool = True) -> None:
        """`lean`: compute its layers by `lean_layers`, where those know them."""
        super().__init__()
        causal_lm.set_output_embeddings(LossHead.sharing(causal_lm.get_output_embeddings()))
        self.causal_lm = causal_lm
        self._is_lean = lean and make_lean(causal_lm)

    def forward(self, batch: MicroBatch) -> TokenScores:
        """Scores of the micro-batch's N target tokens."""
        # No cache and no attention_mask: with either, transformers takes the packed row for one
        # sequence and examples see one another (transformers 5.19, masking_utils.py).
        arguments = attention_arguments(self.causal_lm.config._attn_implementation, batch)
        if self._is_lean:
            arguments["kept_positions"] = batch.target_positions
        hidden = self.causal_lm.base_model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            **arguments,
        ).last_hidden_state.flatten(0, 1)
        if not self._is_lean:
            hidden = hidden.index_select(0, batch.target_positions)
        head = self.causal_lm.get_output_embeddings()
        return head(hidden, batch.target_ids, batch.target_weights)


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
            f"({error}); give the directory of a downloaded model{near_path(Path(model_path))}"
        ) from error


def load_tokenizer(model_path: str) -> Any:
    """The tokenizer beside the model.

    Raises:
        ModelError: when there is none that loads.
    """
    with collector_paused():
        from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_path)
    except Exception as error:
        raise ModelError(
            f"expected a tokenizer at {model_path}, found: {error}; --model_path must hold "
            "tokenizer.json or tokenizer_config.json beside the weights"
        ) from error


def load_causal_lm(
    model_path: str,
    *,
    dtype: str,
    attention: str,
    activation_checkpointing: bool = False,
    compiled: bool = False,
) -> nn.Module:
    """The causal LM in training mode, on the CPU.

    Args:
        model_path: directory or Hub id.
        dtype: a key of `DTYPES`.
        attention: resolved name, see `attention.resolve_attention`.
        activation_checkpointing: recompute each layer's activations in the backward pass.
        compiled: compile the layers at their first use; one compilation serves all of them.

    Raises:
        ModelError: saying what was missing.
    """
    from transformers import AutoModelForCausalLM

    register_attentions()
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            model_path,
            dtype=DTYPES[dtype],
            attn_implementation=REGISTERED.get(attention, attention),
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
    if compiled:
        for layer in model.base_model.layers:
            layer.compile(dynamic=True)  # rows differ in length
    return model.train()


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
    model: nn.Module, state_dict: Mapping[str, Tensor], directory: Path, *, weights_format: str
) -> None:
    """Write a Hugging Face model directory: configuration, generation configuration, weights.

    Not by `save_pretrained`, which looks into the module: this may run while that is trained, and
    its parameters may be shards.

    Args:
        model: the causal LM the weights belong to; only its configurations are read.
        state_dict: full tensors by Hugging Face name; of tied ones the first is written.
        directory: written into.
        weights_format: safetensors, or bin for `pytorch_model.bin`.
    """
    from safetensors.torch import save_file

    addresses: set[int] = set()
    tensors = {}
    for name, tensor in state_dict.items():
        if tensor.data_ptr() not in addresses:
            tensors[name] = tensor
            addresses.add(tensor.data_ptr())
    config = copy.deepcopy(model.config)
    config.dtype = next(t.dtype for t in tensors.values() if t.is_floating_point())
    config.architectures = [type(model).__name__]
    config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)
    if weights_format == "safetensors":
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    else:
        with (directory / "pytorch_model.bin").open("wb") as file:
            torch.save(tensors, file)
