"""The plain way to what `sft-train` does, for time_to_result.py: nothing happens beside training.

    torchrun --nproc_per_node 2 -m benchmarks.plain_way SETTINGS.json RESULT.json
    python -m benchmarks.plain_way MODEL_DIR PROBLEMS.jsonl ANSWERS.json NEW_TOKENS STOP_TOKEN_ID

Padded batches under DistributedDataParallel, logits of every position, tokens made anew at each
start. At each epoch's end training stops: weights and optimizer are saved, a fresh vLLM engine in a
process of its own (the second command) decodes, one process grades. Reading, prompts and grader are
ours.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sft_dist.config import DataConfig
from sft_dist.cpu_precision import faster_dtype
from sft_dist.data.dataset import load_problems
from sft_dist.data.tokenization import TokenizedExample, tokenize_examples
from sft_dist.evaluation.problems import build_problems
from sft_dist.evaluation.request import problems_text, read_problems
from sft_dist.grading.grader import grade
from sft_dist.model import load_tokenizer, stop_token_id
from sft_dist.schedule import learning_rate_at

IGNORED = -100


class PlainRun:
    """One run; `phases` are seconds by what they were spent on, on rank 0."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.phases = settings, dict[str, float]()
        self.accuracies: dict[int, float] = {}
        with self.timed("data"):
            self.tokenizer = load_tokenizer(settings["model_path"])
            self.stop = stop_token_id(settings["model_path"], self.tokenizer)
            data = DataConfig(data_path=settings["data_path"])
            found = load_problems(data, evaluate=True, max_eval_samples=settings["num_problems"])
            self.examples = tokenize_examples(
                found.train, self.tokenizer, prompt="default", stop_token_id=self.stop,
                max_seq_length=settings["max_seq_length"], overlength="truncate",
            )  # fmt: skip
            self.problems = build_problems(found.evaluation, self.tokenizer, prompt="default")
        with self.timed("model"):
            self.model = DistributedDataParallel(load_model(settings))
            self.optimizer = torch.optim.AdamW(
                self.model.parameters(), betas=(0.9, 0.95), weight_decay=0.0
            )

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add what happens inside to a phase."""
        began = time.monotonic()
        yield
        self.phases[phase] = self.phases.get(phase, 0.0) + time.monotonic() - began

    def run(self) -> None:
        """All epochs, with an evaluation before the first and after each."""
        world, batch = dist.get_world_size(), self.settings["global_batch_size"]
        if 0 < len(self.examples) % batch < world:  # a rank without a backward is waited for
            sys.exit(f"{len(self.examples)} examples leave a rank without one in the last batch")
        steps = math.ceil(len(self.examples) / batch) * self.settings["num_epochs"]
        self.evaluate(0)
        step = 0
        for epoch in range(self.settings["num_epochs"]):
            order = torch.randperm(
                len(self.examples), generator=torch.Generator().manual_seed(epoch)
            ).tolist()
            for start in range(0, len(order), batch):
                mine = order[start : start + batch][dist.get_rank() :: world]
                with self.timed("steps"):
                    self.step(step, steps, [self.examples[i] for i in mine])
                step += 1
            self.evaluate(step)

    def step(self, step: int, steps: int, examples: list[TokenizedExample]) -> None:
        """One update from this rank's examples, a padded micro-batch at a time."""
        size = self.settings["batch_size"]
        batches = [examples[i : i + size] for i in range(0, len(examples), size)]
        for number, rows in enumerate(batches):
            self.model.require_backward_grad_sync = number == len(batches) - 1
            input_ids, mask, labels = padded(rows)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.settings["autocast"]):
                loss = self.model(input_ids=input_ids, attention_mask=mask, labels=labels).loss
            (loss / len(batches)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        rate = learning_rate_at(
            step, peak=self.settings["learning_rate"],
            warmup_steps=self.settings["warmup_steps"], total_steps=steps,
        )  # fmt: skip
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()

    def evaluate(self, step: int) -> None:
        """Save, decode by a fresh engine, grade; the other ranks wait."""
        if dist.get_rank() == 0:
            directory = Path(self.settings["directory"]) / f"step-{step}"
            with self.timed("saving"):
                self.model.module.save_pretrained(directory)
                self.tokenizer.save_pretrained(directory)
                torch.save(self.optimizer.state_dict(), directory / "optimizer.pt")
            problems, answers = directory / "problems.jsonl", directory / "answers.json"
            problems.write_text(problems_text(self.problems))
            limits = [str(self.settings["max_new_tokens"]), str(self.stop)]
            command = [sys.executable, "-m", "benchmarks.plain_way", directory, problems, answers]
            with self.timed("engine and generation"), (directory / "vllm.log").open("w") as log:
                subprocess.run(
                    [*map(str, command), *limits], env=own_environment(),
                    check=True, stdout=log, stderr=log,
                )  # fmt: skip
            with self.timed("grading"):
                responses = json.loads(answers.read_text())
                pairs = zip(responses, self.problems, strict=True)
                right = [grade(text, p.answer or "").verdict == "correct" for text, p in pairs]
            self.accuracies[step] = sum(right) / len(right)
        dist.barrier()


def own_environment() -> dict[str, str]:
    """Without what torchrun has set: the engine is no rank, and may use all cores."""
    ranks = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS"}
    return {
        key: value
        for key, value in os.environ.items()
        if key not in ranks and not key.startswith(("TORCHELASTIC", "MASTER_", "GROUP_", "ROLE_"))
    }


def load_model(settings: dict[str, Any]) -> torch.nn.Module:
    """Float32 weights, as a plain recipe keeps its masters."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(settings["model_path"], dtype=torch.float32)


def padded(rows: list[TokenizedExample]) -> tuple[Tensor, Tensor, Tensor]:
    """Input ids, attention mask and labels, each (B, T) with T the longest example."""
    longest = max(len(row) for row in rows)
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(input_ids), torch.full_like(input_ids, IGNORED)
    for i, row in enumerate(rows):
        tokens = torch.as_tensor(row.input_ids)
        input_ids[i, : len(row)], mask[i, : len(row)] = tokens, 1
        labels[i, row.prompt_length : len(row)] = tokens[row.prompt_length :]
    return input_ids, mask, labels


def decode(model_dir: str, problems: str, answers: str, limit: str, stop: str) -> None:
    """A fresh engine's greedy answers."""
    from sft_dist.evaluation.engine_options import prepare_environment

    prepare_environment()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; vLLM would take most of the host's
    from vllm import LLM, SamplingParams

    asked = read_problems(Path(problems))
    longest = max(len(p.prompt_token_ids) for p in asked)
    engine = LLM(model_dir, dtype=faster_dtype("bfloat16"), enforce_eager=True,
                 generation_config="vllm", max_model_len=longest + int(limit))  # fmt: skip
    sampling = SamplingParams(temperature=0, max_tokens=int(limit), stop_token_ids=[int(stop)])
    outputs = engine.generate([{"prompt_token_ids": p.prompt_token_ids} for p in asked], sampling)
    Path(answers).write_text(json.dumps([output.outputs[0].text for output in outputs]))


def train(settings_path: str, result_path: str) -> None:
    """The whole run; rank 0 writes what it found."""
    settings = json.loads(Path(settings_path).read_text())
    dist.init_process_group("gloo")
    run = PlainRun(settings)
    run.run()
    if dist.get_rank() == 0:
        found = {"phases": run.phases, "accuracies": run.accuracies}
        Path(result_path).write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        train(*sys.argv[1:])
    else:
        decode(*sys.argv[1:])
