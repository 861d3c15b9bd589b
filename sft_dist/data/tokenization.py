"""Examples -> token ids. Prompt and target are tokenised apart, as they are at generation.

`T` is the number of tokens of one example. Nothing is padded here.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sft_dist.data.prompts import build_prompt, build_target
from sft_dist.data.records import MathExample
from sft_dist.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenizedExample:
    """One training example."""

    id: str
    input_ids: np.ndarray
    """(T,) int64: prompt, target, stop token."""
    prompt_length: int
    """Tokens of the prompt; the loss is on the rest."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_target_tokens(self) -> int:
        """Tokens with a loss."""
        return len(self.input_ids) - self.prompt_length


def tokenize_examples(
    examples: Sequence[MathExample],
    tokenizer: Any,
    *,
    prompt: str,
    stop_token_id: int,
    max_seq_length: int,
    overlength: Literal["truncate", "drop", "error"],
) -> list[TokenizedExample]:
    """Tokenise all examples; over-long ones as `overlength` says, counted in the log.

    A truncated example loses the end of its target and so its stop token: what is learnt must not
    be to stop there. An example whose prompt alone fills `max_seq_length` is always left out.

    Raises:
        DataError: with `overlength="error"`, naming the over-long examples; or nothing is left.
    """
    prompts = [build_prompt(prompt, e.problem) for e in examples]
    targets = [build_target(prompt, solution=e.solution, answer=e.answer) for e in examples]
    tokenized = [
        TokenizedExample(
            example.id, np.array([*prompt_ids, *target_ids, stop_token_id]), len(prompt_ids)
        )
        for example, prompt_ids, target_ids in zip(
            examples, token_ids(tokenizer, prompts), token_ids(tokenizer, targets), strict=True
        )
    ]
    kept = _handle_overlength(tokenized, max_seq_length, overlength)
    if not kept:
        raise DataError(
            f"no training example is left: {len(examples)} were read, all of them longer than "
            f"--max_seq_length {max_seq_length}; raise it"
        )
    return kept


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text without special tokens; the tokenizers library runs them in parallel."""
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []


def _handle_overlength(
    examples: list[TokenizedExample], max_seq_length: int, overlength: str
) -> list[TokenizedExample]:
    too_long = [e for e in examples if len(e) > max_seq_length]
    if too_long and overlength == "error":
        named = ", ".join(f"{e.id} ({len(e)} tokens)" for e in too_long[:10])
        raise DataError(
            f"{len(too_long)} examples are longer than --max_seq_length {max_seq_length}: {named}; "
            "raise it, or take --overlength truncate or drop"
        )
    kept = []
    for example in examples:
        if len(example) <= max_seq_length:
            kept.append(example)
        elif overlength == "truncate" and example.prompt_length < max_seq_length:
            ids = example.input_ids[:max_seq_length]
            kept.append(TokenizedExample(example.id, ids, example.prompt_length))
    if too_long:
        dropped = len(examples) - len(kept)
        logger.warning(
            "%d of %d examples are longer than max_seq_length %d: %d truncated, %d dropped",
            len(too_long), len(examples), max_seq_length, len(too_long) - dropped, dropped,
        )  # fmt: skip
    return kept
