"""How fast is evaluation, and what does it cost training?

    python -m benchmarks.eval_throughput --model_path MODEL --data_path MATH [--output R.json]

Four measurements of one model, on CPU or GPU, all in one run:

* tokens/s of the evaluation worker's vLLM engine and of `transformers.generate` with the best of
  several batch sizes: same prompts, limit and stop token, greedy, rounds alternating;
* seconds to change the weights of the living engine (proof of the weights included) and to build
  a new one in the same warm process, alternating; greedy answers of both must be identical;
* tokens/s with and without the entropy of every generated token, rounds alternating;
* seconds of a training step while an evaluation runs and afterwards, in one training run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.eval_sides import changed_copy
from benchmarks.eval_steps import compare_steps
from benchmarks.throughput_machine import describe_machine
from sft_dist.config import DataConfig
from sft_dist.data.dataset import load_evaluation_problems
from sft_dist.evaluation.problems import build_problems
from sft_dist.evaluation.request import problems_text
from sft_dist.model import load_tokenizer, local_model_dir, stop_token_id

SAME_ANSWERS = 16
"""Problems whose greedy answers after a reload are compared with those of a new engine."""
PARTS = ["decode", "reload", "entropy", "step"]


def main() -> None:
    arguments = parser().parse_args()
    directory = Path(tempfile.mkdtemp(prefix="eval-throughput-"))
    model_dir = local_model_dir(arguments.model_path)
    settings = write_settings(directory, model_dir, arguments)
    results: dict[str, Any] = {
        "machine": describe_machine(os.cpu_count() or 1), "arguments": vars(arguments)
    }  # fmt: skip
    if {"decode", "reload", "entropy"} & set(arguments.parts):
        with Side("vllm", settings) as vllm:
            results["dtype"] = vllm.ask("load", model_dir=str(model_dir))["dtype"]
            if "decode" in arguments.parts:
                dtype = results["dtype"]
                results["decode"] = compare_decoding(vllm, settings, model_dir, dtype, arguments)
            if "reload" in arguments.parts:
                other = changed_copy(model_dir, directory / "changed")
                results["reload"] = compare_loading(vllm, model_dir, other, arguments.rounds)
            if "entropy" in arguments.parts:
                found = compare_entropy(vllm, settings, model_dir, arguments.rounds)
                results["entropy"] = found
    for placement in arguments.placements if "step" in arguments.parts else ():
        run_dir = directory / placement
        results[f"step, {placement}"] = compare_steps(run_dir, model_dir, placement, arguments)
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(results, indent=2) + "\n")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--model_path", required=True)
    made.add_argument("--data_path", required=True, help="as for training, with a test split")
    made.add_argument("--num_problems", type=int, default=64)
    made.add_argument("--max_new_tokens", type=int, default=128)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--batch_sizes", type=int, nargs="+", default=[8, 16, 32, 64])
    made.add_argument("--gpu_memory", type=float, default=0.4)
    made.add_argument("--compile", action="store_true", help="vLLM with compilation and graphs")
    made.add_argument("--parts", nargs="+", default=PARTS)
    made.add_argument("--placements", nargs="+", default=["shared"], help="shared, reserved")
    made.add_argument("--ranks", type=int, default=1)
    made.add_argument("--train_steps", type=int, default=20, help="after the evaluation")
    made.add_argument("--global_batch_size", type=int, default=8)
    made.add_argument("--max_seq_length", type=int, default=512)
    made.add_argument("--output", help="JSON of all that is measured, with machine and commit")
    return made


class Side:
    """A decoder in its own process, asked one thing at a time."""

    def __init__(self, name: str, settings: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.eval_sides", name, str(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=(settings.parent / f"{name}.log").open("w"),
        )  # fmt: skip

    def ask(self, what: str, **parameters: Any) -> dict[str, Any]:
        """Wait for the answer to one command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **parameters}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a side ended with {self._process.wait()}; see its log in the directory")
        return json.loads(line)

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def write_settings(directory: Path, model_dir: Path, arguments: argparse.Namespace) -> Path:
    tokenizer = load_tokenizer(str(model_dir))
    data = DataConfig(data_path=arguments.data_path)
    examples = load_evaluation_problems(data, arguments.num_problems)
    problems = build_problems(examples, tokenizer, prompt="default")
    (directory / "problems.jsonl").write_text(problems_text(problems))
    settings = {
        "problems": str(directory / "problems.jsonl"),
        "max_new_tokens": arguments.max_new_tokens,
        "stop_token_ids": [stop_token_id(str(model_dir), tokenizer)],
        "gpu_memory": arguments.gpu_memory,
        "enforce_eager": not arguments.compile,
    }
    path = directory / "settings.json"
    path.write_text(json.dumps(settings))
    print(f"{len(problems)} problems, {arguments.max_new_tokens} new tokens at most; {directory}")
    return path


def compare_decoding(
    vllm: Side, settings: Path, model_dir: Path, dtype: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    with Side("hf", settings) as hf:
        hf.ask("load", model_dir=str(model_dir), dtype=dtype)  # what our engine computes in
        vllm.ask("decode")  # both sides once unmeasured: kernels, allocators, page cache
        tried = {size: rate(hf.ask("decode", batch_size=size)) for size in arguments.batch_sizes}
        best = max(tried, key=lambda size: tried[size])
        print("transformers.generate, tokens/s by batch size:", rounded(tried), "-> best", best)
        rates: dict[str, list[float]] = {"vllm": [], "hf": []}
        for _ in range(arguments.rounds):
            rates["vllm"].append(rate(vllm.ask("decode")))
            rates["hf"].append(rate(hf.ask("decode", batch_size=best)))
        hf.ask("load", model_dir=str(model_dir))
        as_stored = rate(hf.ask("decode", batch_size=best))
    ours, theirs = statistics.median(rates["vllm"]), statistics.median(rates["hf"])
    print(f"vLLM worker            {ours:9.1f} tokens/s  {listed(rates['vllm'])}")
    print(f"transformers.generate  {theirs:9.1f} tokens/s  {listed(rates['hf'])}")
    print(f"ratio {ours / theirs:.2f}, both in {dtype}")
    print(f"transformers in the type of the files, once: {as_stored:.1f} tokens/s", flush=True)
    return {
        "tokens/s": rates, "hf by batch size": tried, "ratio": ours / theirs,
        "hf in the type of the files": as_stored,
    }  # fmt: skip


def compare_loading(vllm: Side, model_dir: Path, other: Path, rounds: int) -> dict[str, Any]:
    """Alternate between two models, so that every load changes every tensor."""
    vllm.ask("load", model_dir=str(other), new_engine=True)  # unmeasured, and the page cache
    times: dict[str, list[float]] = {"in place": [], "new engine": []}
    identical = True
    for _ in range(rounds):
        answers = []
        for new in (False, True):
            target = str(model_dir)
            found = vllm.ask("load", model_dir=target, new_engine=new)
            times[found["how"]].append(found["seconds"])
            answers.append(vllm.ask("decode", count=SAME_ANSWERS)["responses"])
            vllm.ask("load", model_dir=str(other))
        identical = identical and answers[0] == answers[1]
    medians = {how: statistics.median(seconds) for how, seconds in times.items() if seconds}
    for how, seconds in medians.items():
        print(f"weights, {how:<12} {seconds:8.2f} s  {listed(times[how], 2)}")
    ratio = medians["new engine"] / medians["in place"] if len(medians) == 2 else None
    print(f"ratio {ratio:.1f}" if ratio else "every load built a new engine")
    print(f"greedy answers after a reload and of a fresh engine identical: {identical}", flush=True)
    return {"seconds": times, "ratio": ratio, "identical": identical}


def compare_entropy(vllm: Side, settings: Path, model_dir: Path, rounds: int) -> dict[str, Any]:
    """The same engine beside one that records no entropies."""
    rates: dict[str, list[float]] = {"with": [], "without": []}
    with Side("vllm_without_entropy", settings) as without:
        without.ask("load", model_dir=str(model_dir))
        vllm.ask("load", model_dir=str(model_dir))
        for side in (without, vllm):
            side.ask("decode")
        for _ in range(rounds):
            rates["without"].append(rate(without.ask("decode")))
            rates["with"].append(rate(vllm.ask("decode")))
    cost = 1 - statistics.median(rates["with"]) / statistics.median(rates["without"])
    for name, found in rates.items():
        print(
            f"{name:<8} token entropies {statistics.median(found):9.1f} tokens/s  {listed(found)}"
        )
    print(f"entropies cost {cost:.1%} of the tokens/s", flush=True)
    return {"tokens/s": rates, "cost": cost}


def rate(answer: dict[str, Any]) -> float:
    return answer["tokens"] / answer["seconds"]


def rounded(rates: dict[int, float]) -> dict[int, float]:
    return {size: round(value, 1) for size, value in rates.items()}


def listed(values: Sequence[float], digits: int = 1) -> str:
    return "(" + ", ".join(f"{value:.{digits}f}" for value in values) + ")"


if __name__ == "__main__":
    main()
