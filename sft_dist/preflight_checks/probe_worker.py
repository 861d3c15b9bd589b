"""One rank of the probe: `python -m sft_dist.preflight_checks.probe_worker SPEC RESULT`.

A process of its own, so that its peak is its own, its memory is given back, and the preflight
survives when there is not enough. It runs two steps: AdamW's moments exist from the first on, so
only the second holds everything, and only the second has the time of a usual step.
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sft_dist.config import TrainConfig, from_flat
from sft_dist.data.packing import micro_batches
from sft_dist.data.tokenization import TokenizedExample
from sft_dist.engines.build import build_engine, load_model
from sft_dist.runtime.distributed import distributed

NUM_STEPS = 2


def main() -> None:
    """Read the specification, run the steps, write what they took."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    config = from_flat(spec["config"])
    if config.engine.engine == "deepspeed":
        from sft_dist.engines.deepspeed_engine import import_deepspeed

        import_deepspeed()  # part of the baseline, not of the job
    with distributed() as ranks:
        result = run_steps(config, spec, ranks.device)
    Path(sys.argv[2]).write_text(json.dumps(result))


def run_steps(config: TrainConfig, spec: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Peaks above the baseline, bytes, by phase; seconds of the last step."""
    _touch_code(config)
    batches = micro_batches(*examples_of(spec["micro_batches"]), packing=config.batch.packing)
    targets = sum(batch.num_target_tokens for batch in batches)
    meter = PeakMeter(device)
    stop_id = spec["stop_token_id"]
    model = load_model(config, Path(spec["model_dir"]), device=device, stop_token_id=stop_id)
    engine = build_engine(config, model, device=device)
    del model  # an engine may free what it has sharded
    peaks = {"build": meter.peak()}
    seconds = 0.0
    for step in range(1, NUM_STEPS + 1):
        began = time.monotonic()
        engine.train_step(batches, max(1, targets) * spec["world_size"], 1e-9)
        seconds = time.monotonic() - began
        peaks[f"step {step}"] = meter.peak()
    return {"peaks": peaks, "step_seconds": seconds, "baseline": meter.baseline}


def _touch_code(config: TrainConfig) -> None:
    """A step of a model of nothing: libraries' code is in memory then, and in the baseline."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from sft_dist.attention import REGISTERED, register_attentions
    from sft_dist.engines.torch_engine import TorchEngine
    from sft_dist.model import DTYPES

    register_attentions()
    shape = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1}
    small = Qwen2Config(**shape, **heads, attn_implementation=REGISTERED["sdpa"])
    model = Qwen2ForCausalLM(small).to(DTYPES[config.model.dtype]).train()
    engine = TorchEngine(model, config.optimizer, device=torch.device("cpu"))
    examples, positions = examples_of([[[16, 4], [16, 4]]])
    engine.train_step(micro_batches(examples, positions), 1.0, 0.0)


def examples_of(
    plan: list[list[list[int]]],
) -> tuple[list[TokenizedExample], list[list[int]]]:
    """Examples of the given lengths (their tokens do not matter), and their micro-batches.

    Args:
        plan: (tokens, prompt tokens) of each example, by micro-batch.
    """
    examples: list[TokenizedExample] = []
    positions: list[list[int]] = []
    for part in plan:
        positions.append(list(range(len(examples), len(examples) + len(part))))
        examples += [
            TokenizedExample(f"probe/{i}", np.arange(length, dtype=np.int64) % 97, prompt)
            for i, (length, prompt) in enumerate(part)
        ]
    return examples, positions


class PeakMeter:
    """Peak above what the process held when the meter was made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.baseline = 0
        self.baseline = self._level()
        self._restart()

    def peak(self) -> int:
        """The most since the last call, above the baseline, bytes."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            found = torch.cuda.max_memory_allocated(self._device)
        else:
            found = _status_bytes("VmHWM")
        self._restart()
        return found - self.baseline

    def _level(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        return _status_bytes("VmRSS")

    def _restart(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM


def _status_bytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
