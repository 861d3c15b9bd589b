"""Examples -> token ids. Prompt and target are tokenised apart, as they are at generation.

`T` is the number of tokens of one example. Nothing is padded here.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from sft_dist.data.prompts import build_prompt, build_target
from sft_dist.data.records import MathExample
from sft_dist.data.token_cache import TokenTable, cache_key, cached
from sft_dist.errors import DataError

logger = logging.getLogger(__name__)

CHUNK = 1024
"""Examples in one call of the tokenizer: enough for all cores, and the bar moves."""


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
    cache_dir: Path | None = None,
    show_progress: bool = False,
) -> list[TokenizedExample]:
    """Tokenise all examples; over-long ones as `overlength` says, counted in the log.

    A truncated example loses the end of its target and so its stop token: what is learnt must not
    be to stop there. An example whose prompt alone fills `max_seq_length` is always left out.

    Args:
        examples: in the order of the result.
        tokenizer: of transformers.
        prompt: name of the prompt format.
        stop_token_id: ends each example.
        max_seq_length: applied after the cache, as is `overlength`: neither needs new tokens.
        overlength: what happens to longer examples.
        cache_dir: where tokens are kept for the next run; None keeps none.
        show_progress: draw a bar on standard error.

    Raises:
        DataError: with `overlength="error"`, naming the over-long examples; or nothing is left.
    """
    prompts = [build_prompt(prompt, e.problem) for e in examples]
    targets = [build_target(prompt, solution=e.solution, answer=e.answer) for e in examples]

    def build() -> TokenTable:
        return _tokenize(prompts, targets, tokenizer, stop_token_id, show_progress=show_progress)

    # A tokenizer written in Python has no serialised form to tell it from others by.
    if cache_dir is None or not hasattr(tokenizer, "backend_tokenizer"):
        table = build()
    else:
        texts = [*prompts, *targets]
        key = cache_key(texts, tokenizer, prompt=prompt, stop_token_id=stop_token_id)
        table = cached(cache_dir, key, build)
    kept = _handle_overlength(_examples(examples, table), max_seq_length, overlength)
    if not kept:
        raise DataError(
            f"no training example is left: {len(examples)} were read, all of them longer than "
            f"--max_seq_length {max_seq_length}; raise it"
        )
    return kept


def _tokenize(
    prompts: Sequence[str],
    targets: Sequence[str],
    tokenizer: Any,
    stop_token_id: int,
    *,
    show_progress: bool,
) -> TokenTable:
    began = time.monotonic()
    rows: list[np.ndarray] = []
    prompt_lengths: list[int] = []
    bar = tqdm(total=len(prompts), unit="example", desc="tokenising", disable=not show_progress)
    with bar:
        for start in range(0, len(prompts), CHUNK):
            prompt_ids = token_ids(tokenizer, prompts[start : start + CHUNK])
            target_ids = token_ids(tokenizer, targets[start : start + CHUNK])
            prompt_lengths += map(len, prompt_ids)
            rows += [
                np.array([*asked, *answered, stop_token_id], dtype=np.int32)
                for asked, answered in zip(prompt_ids, target_ids, strict=True)
            ]
            bar.update(len(prompt_ids))
    table = TokenTable(
        input_ids=np.concatenate(rows),
        ends=np.cumsum([len(row) for row in rows]),
        prompt_lengths=np.array(prompt_lengths),
    )
    seconds = time.monotonic() - began
    logger.info("tokenised %d examples in %.1f s", len(prompts), seconds)
    return table


def _examples(examples: Sequence[MathExample], table: TokenTable) -> list[TokenizedExample]:
    ids = np.split(table.input_ids.astype(np.int64), table.ends[:-1])  # views of one array
    return [
        TokenizedExample(example.id, row, length)
        for example, row, length in zip(examples, ids, table.prompt_lengths.tolist(), strict=True)
    ]


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
