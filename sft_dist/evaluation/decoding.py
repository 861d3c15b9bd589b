"""What both back-ends must do alike, so that a number does not depend on which one ran.

Shape legend: B rows, V vocabulary.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sft_dist.errors import EvaluationError
from sft_dist.evaluation.generator import Draw
from sft_dist.evaluation.request import Sampling

TOKENIZER_FILES = (
    "tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "spiece.model",
)  # fmt: skip
"""What of a model directory a tokenizer is read from."""


def row_entropies(logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of each row's distribution: (B, V) logits -> (B,), in float32.

    H = logsumexp(z) - sum(softmax(z) z), with z shifted by its maximum so that nothing overflows;
    a row's masked entries (-inf) carry probability 0 and count nothing.
    """
    logits = logits.float()
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    weights = shifted.exp()
    total = weights.sum(dim=-1)
    # What is so far below the maximum has weight 0; finite, it may be multiplied by that.
    weighted = torch.linalg.vecdot(weights, shifted.clamp_(min=-1e4))
    return total.log() - weighted / total


class TokenizerLoader:
    """The tokenizer of the model that was loaded last; read again only when its files differ.

    All checkpoints of a run have the same one, and reading it takes as long as reading the weights
    of a small model.
    """

    def __init__(self) -> None:
        self._content = ""
        self._tokenizer: Any = None

    def load(self, model_dir: Path) -> Any:
        """The tokenizer in `model_dir`, or the last one where the directory holds weights only.

        Raises:
            EvaluationError: when it cannot be read.
        """
        from transformers import AutoTokenizer

        if self._tokenizer is not None and not (model_dir / "tokenizer_config.json").is_file():
            return self._tokenizer
        try:
            content = _content_of_tokenizer(model_dir)
            if self._tokenizer is None or content != self._content:
                self._tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
                self._content = content
        except (OSError, ValueError) as error:
            raise EvaluationError(f"cannot load the tokenizer in {model_dir}: {error}") from error
        return self._tokenizer


def _content_of_tokenizer(model_dir: Path) -> str:
    digest = hashlib.sha256()
    for pattern in TOKENIZER_FILES:
        for path in sorted(model_dir.glob(pattern)):
            data = path.read_bytes()
            digest.update(f"{path.name} {len(data)}\n".encode())
            digest.update(data)
    return digest.hexdigest()


def response_text(tokenizer: Any, token_ids: Sequence[int], sampling: Sampling) -> str:
    """The generated text without the stop token."""
    ids = list(token_ids)
    if ids and ids[-1] in sampling.stop_token_ids:
        ids.pop()
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def draw_seed(sampling: Sampling, draw: Draw) -> int:
    """The seed of one answer, independent of its place in a batch; below 2^31.

    The first answer does not depend on how many are drawn.
    """
    number = f":{draw.sample}" if draw.sample else ""
    digest = hashlib.sha256(f"{sampling.seed}:{draw.problem.id}{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
