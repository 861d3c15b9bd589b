"""A Qwen2 of a few thousand parameters and examples of unequal lengths, always the same."""

import numpy as np
import torch

from sft_dist.data.tokenization import TokenizedExample

VOCAB = 128


def tiny_model(attention="sdpa", dtype=torch.float32, seed=0, initializer_range=0.2):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from sft_dist.attention import REGISTERED, register_attentions

    register_attentions()
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
        tie_word_embeddings=True, initializer_range=initializer_range,
        attn_implementation=REGISTERED.get(attention, attention),
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).train()
    for parameter in model.parameters():  # not .to(dtype): rotary frequencies stay float32
        parameter.data = parameter.data.to(dtype)
    return model


def tiny_examples(count=37, seed=0, longest=60):
    """Lengths from 4 tokens on; count is prime to every batch size, so the last batch is short."""
    rng = np.random.default_rng(seed)
    examples = []
    for index in range(count):
        length = int(rng.integers(4, longest + 1))
        prompt = int(rng.integers(1, length - 1))
        ids = rng.integers(0, VOCAB, length)
        examples.append(TokenizedExample(f"train/x/{index}", ids, prompt))
    return examples
