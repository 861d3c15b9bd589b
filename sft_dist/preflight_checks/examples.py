"""The data as the model will see it: where targets end, and one example with its loss mask."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft_dist.data.tokenization import TokenizedExample
from sft_dist.model import stop_token_id
from sft_dist.preflight_checks.findings import Finding

MAX_SHOWN = 1500
"""Characters of the preview."""
HARDLY_ANY = 0.2
"""Share of targets without a stop token from which on a model learns not to stop."""


def stop_finding(
    examples: Sequence[TokenizedExample], stop_id: int, *, model_dir: Path, tokenizer: Any
) -> Finding:
    """Whether targets end with the id at which generation will stop."""
    text = f"{stop_id} = {tokenizer.decode([stop_id])!r}"
    generation = stop_token_id(str(model_dir), tokenizer)
    if generation != stop_id:
        return Finding(
            "stop token", "no-go", f"targets end with {text}, generation at {generation}"
        )
    ends = [int(e.input_ids[-1]) == stop_id for e in examples]
    without = len(ends) - sum(ends)
    early = sum(stop_id in e.input_ids[e.prompt_length : -1] for e in examples)
    text += f": ends {sum(ends)} of {len(ends)} targets, and generation"
    if early:
        text += f"; {early} targets have it in the middle"
    if without > HARDLY_ANY * len(ends):
        advice = "raise --max_seq_length or take --overlength drop"
        return Finding("stop token", "no-go", f"{text}; {without} were cut off: {advice}")
    return Finding("stop token", "note" if without or early else "ok", text)


def preview_finding(example: TokenizedExample, tokenizer: Any) -> Finding:
    """One example, decoded; what has a loss stands between the marks."""
    prompt, target = (
        example.input_ids[: example.prompt_length],
        example.input_ids[example.prompt_length :],
    )
    told = f"{len(prompt)} prompt tokens without loss, {len(target)} target tokens with"
    text = f"{tokenizer.decode(prompt)}[[LOSS>>{tokenizer.decode(target)}<<LOSS]]"
    shown = (
        text
        if len(text) <= MAX_SHOWN
        else f"{text[: MAX_SHOWN // 2]} ... {text[-MAX_SHOWN // 2 :]}"
    )
    if len(target) == 0:
        return Finding("example", "no-go", f"{example.id}: no token has a loss")
    return Finding("example", "ok", f"{example.id}: {told}\n{shown}")
