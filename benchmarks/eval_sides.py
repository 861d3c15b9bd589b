"""The decoders that eval_throughput.py compares, each in a process of its own.

    python -m benchmarks.eval_sides vllm|vllm_without_entropy|hf SETTINGS.json

Commands are JSON lines on standard input, answers JSON lines on standard output; what libraries
print goes to standard error. A side that is not asked does nothing, so the two can alternate.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sft_dist.evaluation.request import Problem, Sampling, read_problems


class VllmSide:
    """Our worker's generator."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from sft_dist.evaluation.engine_options import EngineOptions, prepare_environment

        prepare_environment()
        from sft_dist.evaluation.vllm_generator import VllmGenerator

        self._problems = read_problems(Path(settings["problems"]))
        self._sampling = sampling_of(settings)
        longest = max(len(problem.prompt_token_ids) for problem in self._problems)
        options = EngineOptions(
            max_model_len=longest + self._sampling.max_new_tokens,
            gpu_memory_utilization=settings["gpu_memory"],
            enforce_eager=settings["enforce_eager"],
        )
        self._generator = VllmGenerator(options)

    def load(self, model_dir: str, new_engine: bool = False) -> dict[str, Any]:
        """Load in place, or build a new engine in this process; proof of the weights included."""
        if new_engine:
            self._generator.close()
        began = time.monotonic()
        facts = self._generator.load(Path(model_dir))
        seconds = time.monotonic() - began
        return {"seconds": seconds, "how": facts["loaded"], "dtype": facts["dtype"]}

    def decode(self, count: int | None = None) -> dict[str, Any]:
        """Decode the first problems, or all; vLLM schedules them itself."""
        began, problems = time.monotonic(), self._problems[:count]
        rows = self._generator.generate(problems, self._sampling, lambda done: None)
        seconds = time.monotonic() - began
        return {
            "seconds": seconds,
            "tokens": sum(row.num_tokens for row in rows),
            "responses": [row.response for row in rows],
        }


class VllmWithoutEntropySide(VllmSide):
    """The same engine without the logits processor that notes entropies."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        from sft_dist.evaluation.vllm_extension import ENTROPIES as log
        from sft_dist.evaluation.vllm_generator import _import_vllm

        vllm = _import_vllm()
        plain = vllm.LLM

        def engine(**options: Any) -> Any:
            return plain(**(options | {"logits_processors": None}))

        vllm.LLM = engine
        log.means = lambda num_tokens: [None] * len(num_tokens)  # type: ignore[method-assign]


class HfSide:
    """`generate` of transformers, prompts sorted by length, padded on the left."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch

        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        problems = read_problems(Path(settings["problems"]))
        self._problems = sorted(problems, key=lambda problem: -len(problem.prompt_token_ids))
        self._sampling = sampling_of(settings)
        self._model: Any = None

    def load(self, model_dir: str, dtype: str = "auto") -> dict[str, Any]:
        """Load from disk; `auto` is the type of the files."""
        from transformers import AutoModelForCausalLM

        began = time.monotonic()
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype)
        self._model = model.to(self._device).eval()
        return {"seconds": time.monotonic() - began, "how": "from_pretrained"}

    def decode(self, batch_size: int) -> dict[str, Any]:
        """Decode all problems in batches of `batch_size`."""
        began = time.monotonic()
        tokens = sum(self._batch(batch) for batch in batches(self._problems, batch_size))
        return {"seconds": time.monotonic() - began, "tokens": tokens}

    def _batch(self, batch: Sequence[Problem]) -> int:
        """Tokens generated, stop tokens included."""
        torch, longest = self._torch, max(len(p.prompt_token_ids) for p in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long, device=self._device)
        mask = torch.zeros_like(ids)
        for row, problem in enumerate(batch):
            length = len(problem.prompt_token_ids)
            ids[row, longest - length :] = torch.tensor(problem.prompt_token_ids)
            mask[row, longest - length :] = 1
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=0,
                max_new_tokens=self._sampling.max_new_tokens,
                eos_token_id=list(self._sampling.stop_token_ids),
            )  # fmt: skip
        stops = set(self._sampling.stop_token_ids)
        return sum(length_with_stop(row.tolist(), stops) for row in out[:, longest:])


def sampling_of(settings: dict[str, Any]) -> Sampling:
    return Sampling(settings["max_new_tokens"], stop_token_ids=tuple(settings["stop_token_ids"]))


def batches(problems: Sequence[Problem], size: int) -> Iterator[Sequence[Problem]]:
    return (problems[start : start + size] for start in range(0, len(problems), size))


def length_with_stop(tokens: list[int], stops: set[int]) -> int:
    """Tokens up to the first stop token, that one included; what follows is padding."""
    end = next((place for place, token in enumerate(tokens) if token in stops), len(tokens) - 1)
    return end + 1


def changed_copy(source: Path, target: Path) -> Path:
    """A model like `source` whose every tensor differs: what an update of training does."""
    import torch
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, target)
            continue
        torch.manual_seed(0)
        tensors = {
            name: (tensor.float() * (1 + 0.02 * torch.randn(tensor.shape))).to(tensor.dtype)
            for name, tensor in load_file(path).items()
        }
        save_file(tensors, target / path.name, metadata={"format": "pt"})
    return target


SIDES = {"vllm": VllmSide, "vllm_without_entropy": VllmWithoutEntropySide, "hf": HfSide}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    settings = json.loads(Path(sys.argv[2]).read_text())
    side: Any = SIDES[sys.argv[1]](settings)
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(side, command.pop("do"))(**command)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
