"""Makes, from a seed, a tiny Qwen2 model with random weights and a tokenizer of its own.

The directory looks like any Hugging Face model to transformers, to vLLM and to `sft_dist.train`.
The tokenizer is a byte-level BPE like Qwen's, trained here on the demo's problems: one token per
digit, and any text is covered. The model knows nothing before it is trained.
"""

import json
from pathlib import Path
from typing import Any

from launch.demo.problems import make_problems

END_OF_TEXT = "<|endoftext|>"
"""Ends every target; generation stops at it."""

VOCABULARY_SIZE = 384
"""256 bytes, the end of text, and merges that make each word of the problems one token."""

MAX_POSITION_EMBEDDINGS = 512
HIDDEN_SIZE = 128
NUM_LAYERS = 2  # the fewest that can copy an operand from the problem
HEAD_DIM = 32  # vLLM's CPU attention has no kernel below 32
INTERMEDIATE_SIZE = 384
INITIALIZER_RANGE = 0.05  # Qwen's 0.02 is for wider layers; here it costs 60 steps of plateau


def write_model(directory: Path, seed: int) -> None:
    """Write a Qwen2ForCausalLM with random bf16 weights, its tokenizer, its generation config."""
    import torch
    import transformers
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    transformers.utils.logging.disable_progress_bar()
    tokenizer = build_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=HIDDEN_SIZE // HEAD_DIM,
        num_key_value_heads=HIDDEN_SIZE // HEAD_DIM,
        intermediate_size=INTERMEDIATE_SIZE,
        max_position_embeddings=MAX_POSITION_EMBEDDINGS,
        tie_word_embeddings=True,
        initializer_range=INITIALIZER_RANGE,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id, do_sample=False
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def build_tokenizer() -> Any:
    """Return the tokenizer, a Qwen2Tokenizer; the same at every call.

    AutoTokenizer loads any tokenizer of a qwen2 model as this class, with Qwen's word borders and
    normalisation (transformers 5.19), so merges are learnt within those borders. As with the
    real one, decoding gives back the Unicode NFC form: the text itself, but for some accents.
    """
    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend = Qwen2Tokenizer().backend_tokenizer
    backend.train_from_iterator(_corpus(), trainer)
    trained = json.loads(backend.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(merge) for merge in trained["merges"]],
        model_max_length=MAX_POSITION_EMBEDDINGS,
    )


def _corpus() -> list[str]:
    """Texts that hold every word of the problems, their solutions and the default prompt."""
    train, _ = make_problems(0, num_train=500, num_test=0)
    frame = "Solve this math problem:\n\n{problem}\n\nAnswer: {solution}"
    return [frame.format(**record) for record in train]
