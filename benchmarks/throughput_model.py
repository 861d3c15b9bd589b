"""A Qwen2 model of a given shape with random weights and a real tokenizer, for benchmarks.

    python throughput_model.py 49m DIRECTORY --tokenizer_path QWEN2.5_MODEL

Speed does not depend on the values of the weights, only on shapes; the vocabulary must be the real
one, since the head is most of a small model's work.
"""

import argparse
import shutil
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 151_936
# hidden size, MLP size, layers, query heads, key and value heads. 0.5b and 1.5b are the shapes in
# the config.json of Qwen2.5-0.5B and of Qwen2.5-Math-1.5B.
SHAPES = {
    "49m": (256, 1376, 8, 4, 2),
    "0.5b": (896, 4864, 24, 14, 2),
    "1.5b": (1536, 8960, 28, 12, 2),
}
_COPIED = ("generation_config.json",)


def make_model(shape: str, directory: Path, tokenizer_path: Path) -> Path:
    """Write a model directory, weights in bfloat16 as Qwen2.5's are; the directory."""
    hidden, intermediate, layers, heads, groups = SHAPES[shape]
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    AutoTokenizer.from_pretrained(tokenizer_path).save_pretrained(directory)
    for name in _COPIED:
        if (tokenizer_path / name).exists():
            shutil.copy(tokenizer_path / name, directory / name)
    return directory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tokenizer_path", type=Path, required=True)
    arguments = parser.parse_args()
    print(make_model(arguments.shape, arguments.directory, arguments.tokenizer_path))


if __name__ == "__main__":
    main()
