"""Decoding with transformers: slow, exact, and there where vLLM is not installed.

Shape legend: B prompts decoded together, T positions, V vocabulary.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from sft_dist.cpu_precision import faster_dtype
from sft_dist.errors import EvaluationError
from sft_dist.evaluation.decoding import TokenizerLoader, draw_seed, response_text, row_entropies
from sft_dist.evaluation.generator import Completion, Draw, Progress, draws, prompt_overflow
from sft_dist.evaluation.request import Problem, Sampling


class HfGenerator:
    """Decodes in batches of `batch_size` prompts of similar length, padded on the left."""

    def __init__(self, *, batch_size: int = 8, dtype: str = "auto") -> None:
        self._batch_size = batch_size
        self._dtype = dtype
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = None
        self._tokenizer: Any = None
        self._tokenizers = TokenizerLoader()

    def load(self, model_dir: Path) -> dict[str, Any]:
        """Load a fresh model: nothing can be stale, but tensors can be missing."""
        self.close()
        self._tokenizer = self._tokenizers.load(model_dir)
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                model_dir, dtype=self._dtype, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise EvaluationError(f"transformers cannot load {model_dir}: {error}") from error
        # transformers fills what is missing with random numbers and goes on.
        wrong = [*report["missing_keys"], *report["mismatched_keys"]]
        if wrong:
            raise EvaluationError(f"{model_dir} lacks tensors of the model: {sorted(wrong)[:5]}")
        stored = str(model.dtype).removeprefix("torch.")
        dtype = faster_dtype(stored) if self._dtype == "auto" else stored
        if dtype != stored:  # never to fewer bits: rotary frequencies are float32 in any model
            model = model.float()
        self._model = model.to(self._device).eval()
        return {"backend": "hf", "device": str(self._device), "dtype": dtype}

    def generate(
        self, problems: Sequence[Problem], sampling: Sampling, on_progress: Progress
    ) -> list[Completion]:
        """Decode, longest prompts first, so that memory runs out at once or not at all."""
        limit = int(self._model.config.max_position_embeddings)
        wanted = draws(problems, sampling)
        long = [draw for draw in wanted if len(draw.problem.prompt_token_ids) >= limit]
        done = {draw.key: prompt_overflow(draw) for draw in long}
        waiting = [draw for draw in wanted if draw.key not in done]
        waiting.sort(key=lambda draw: len(draw.problem.prompt_token_ids), reverse=True)
        for start in range(0, len(waiting), self._batch_size):
            batch = waiting[start : start + self._batch_size]
            for row in self._decode(batch, sampling, limit, lambda: on_progress(len(done))):
                done[row.draw.key] = row.completion(self._tokenizer, sampling)
            on_progress(len(done))
        return [done[draw.key] for draw in wanted]

    def close(self) -> None:
        """Drop the model and give its memory back."""
        self._model = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _decode(
        self, batch: Sequence[Draw], sampling: Sampling, limit: int, on_token: Callable[[], None]
    ) -> list["_Row"]:
        rows = [_Row(draw, sampling, limit) for draw in batch]
        prompts = [draw.problem.prompt_token_ids for draw in batch]
        input_ids, mask = _left_padded(prompts, self._device)
        cache = None
        while True:
            on_token()
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
            output = self._model(
                input_ids=input_ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logits = output.logits[:, -1].float()  # (B, V)
            tokens = _next_tokens(logits, rows, sampling)
            for row, token, entropy in zip(
                rows, tokens, row_entropies(logits).tolist(), strict=True
            ):
                row.append(token, entropy)
            if all(row.finish_reason for row in rows):
                return rows
            input_ids = torch.tensor(tokens, device=self._device)[:, None]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)


@dataclass
class _Row:
    """One sequence being decoded."""

    draw: Draw
    sampling: Sampling
    limit: int
    tokens: list[int] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    finish_reason: str = ""
    random: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(draw_seed(self.sampling, self.draw))

    def append(self, token: int, entropy: float) -> None:
        """Take the next token, unless the row has finished and only waits for its batch."""
        if self.finish_reason:
            return
        self.tokens.append(token)
        self.entropies.append(entropy)
        room = self.limit - len(self.draw.problem.prompt_token_ids)
        if token in self.sampling.stop_token_ids:
            self.finish_reason = "stop"
        elif len(self.tokens) >= min(self.sampling.max_new_tokens, room):
            self.finish_reason = "length"

    def completion(self, tokenizer: Any, sampling: Sampling) -> Completion:
        return Completion(
            id=self.draw.problem.id,
            response=response_text(tokenizer, self.tokens, sampling),
            num_tokens=len(self.tokens),
            finish_reason=self.finish_reason,
            mean_token_entropy=sum(self.entropies) / len(self.entropies),
            sample=self.draw.sample,
        )


def _left_padded(
    prompts: Sequence[list[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, both (B, T); the pad id is arbitrary, as the mask hides it."""
    longest = max(len(prompt) for prompt in prompts)
    ids = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _next_tokens(logits: torch.Tensor, rows: Sequence[_Row], sampling: Sampling) -> list[int]:
    """Greedy at temperature 0, else a draw of each row from its own stream."""
    if sampling.temperature == 0.0:
        return [int(token) for token in logits.argmax(dim=-1).tolist()]
    probabilities = (logits / sampling.temperature).softmax(dim=-1).cpu()
    return [
        int(torch.multinomial(weights, 1, generator=row.random))
        for weights, row in zip(probabilities, rows, strict=True)
    ]
