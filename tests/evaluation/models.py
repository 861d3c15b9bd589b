"""Tiny models and a character tokenizer for the evaluation tests; real files, no download."""

from pathlib import Path
from typing import Any

from sft_dist.evaluation.generator import Completion
from sft_dist.evaluation.request import Problem, Sampling

CHARACTERS = [chr(code) for code in range(32, 127)]
EOS = len(CHARACTERS)
GREEDY = Sampling(max_new_tokens=20, stop_token_ids=(EOS,))


def save_tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: i for i, character in enumerate([*CHARACTERS, "<eos>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    fast.save_pretrained(directory)


def save_model(
    directory: Path, *, seed: int, tied: bool = True, dtype: str = "float32",
    vocabulary: int = len(CHARACTERS) + 1,
) -> Path:  # fmt: skip
    """A random Qwen2 whose every tensor depends on the seed. Head size 32: vLLM's smallest on CPU.

    The initial weights are large, so that the distributions are far from flat and an argmax
    hardly ever hangs on rounding.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary, pad_token_id=vocabulary - 1, hidden_size=64, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=128, tie_word_embeddings=tied, initializer_range=0.3,
        bos_token_id=None, eos_token_id=EOS,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.to(getattr(torch, dtype)).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


def problem(name: str, text: str, *, answer: str | None = "1", level: int = 1) -> Problem:
    ids = [CHARACTERS.index(character) for character in text]
    return Problem(name, text, ids, text, answer, "algebra", level)


def problems(count: int = 6) -> list[Problem]:
    """Prompts of unequal lengths, in no order of length."""
    return [
        problem(f"p{i}", "".join(CHARACTERS[(7 * i + 3 * j) % 95] for j in range(5 + 11 * i % 40)))
        for i in range(count)
    ]


class FakeGenerator:
    """Answers each problem with the name of the loaded directory; records what was asked."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.errors: list[Exception] = []

    def load(self, model_dir: Path) -> dict[str, Any]:
        self.loaded.append(model_dir.name)
        return {"backend": "fake"}

    def generate(self, problems: Any, sampling: Sampling, on_progress: Any) -> list[Completion]:
        completions = []
        for number, item in enumerate(problems, 1):
            if self.errors:
                raise self.errors.pop(0)
            text = f"{self.loaded[-1]} says \\boxed{{{item.answer}}}"
            completions.append(Completion(item.id, text, 4, "stop", 0.5))
            on_progress(number)
        return completions

    def close(self) -> None:
        pass


def save_weights(directory: Path, value: float = 1.0) -> Path:
    """Something that has a fingerprint."""
    import numpy as np
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.full((2, 3), value, dtype=np.float32)}, directory / "model.safetensors")
    return directory
