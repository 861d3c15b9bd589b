"""What a GPU can show, by one command; on a CPU the same in small form, and what stays untested.

    python -m benchmarks.gpu_suite [--data_path MATH --tokenizer_path QWEN2.5] [--peer_path PEERS]

Kernels (`gpu_kernels.py`), one curve over the engines and over the ranks through `sft_dist.train`,
evaluation by vLLM against transformers, and, where MATH and a tokenizer are given, throughput and
memory of the 1.5B shape against TRL (`train_throughput.py`). Prints each part and writes it to
`results/gpu_suite-<hardware>-<date>.json` when it is done.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.throughput_machine import describe_machine, results_path
from launch.demo.model import write_model
from launch.demo.problems import make_problems, write_math_directory
from sft_dist.tracking.record import last_by, read_rows

HERE = Path(__file__).resolve().parent
STEPS = 10
CURVE = {
    "max_steps": STEPS, "warmup_steps": 0, "global_batch_size": 32, "max_seq_length": 128,
    "batch_size": 4, "learning_rate": 1e-3, "wandb_mode": "disabled", "log_steps": 1,
    "eval_placement": "off", "save_steps": 10**6,
}  # fmt: skip
EVALUATION = {"max_eval_samples": 64, "generation_max_length": 32, "wandb_mode": "disabled"}


def main() -> None:
    arguments = parser().parse_args()
    suite = Suite(Path(tempfile.mkdtemp(prefix="gpu-suite-")), arguments)
    parts = {"kernels": suite.kernels, "curve": suite.curve, "evaluation": suite.evaluation,
             "throughput": suite.throughput}  # fmt: skip
    path = results_path(HERE / "results", "gpu_suite", suite.results["machine"])
    for name in arguments.parts or parts:
        print(f"{name} ...", flush=True)
        suite.results |= {name: parts[name](), "untested": suite.untested}
        print(json.dumps(suite.results[name], indent=2), flush=True)
        path.write_text(json.dumps(suite.results, indent=2) + "\n")  # what is done outlives a fault
    print("untested here:", *(f"\n  {line}" for line in suite.untested))
    print(path)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--data_path", help="MATH, for throughput")
    made.add_argument("--tokenizer_path", help="a model with the Qwen2.5 tokenizer, for throughput")
    made.add_argument("--peer_path", help="as for train_throughput.py")
    made.add_argument("--parts", nargs="+", help="only these of kernels, curve, evaluation, ...")
    return made


class Suite:
    """The parts; each gives what is to be written, and adds to `untested` what it could not do."""

    def __init__(self, directory: Path, arguments: argparse.Namespace) -> None:
        self._directory, self._arguments = directory, arguments
        self._gpus = torch.cuda.device_count()
        self.results: dict[str, Any] = {"machine": describe_machine(torch.get_num_threads())}
        self.untested: list[str] = []
        if not self._gpus:
            self.untested.append("NCCL, GPU kernels, GPU memory: no GPU here")
        elif self._gpus == 1:
            self.untested.append("NCCL between GPUs: one GPU here")
        write_model(directory / "model", 0)
        train, test = make_problems(0, num_train=400, num_test=64)
        write_math_directory(directory / "data", train, test=test)
        self._inputs = {"model_path": directory / "model", "data_path": directory / "data",
                        "cache_dir": directory / "cache"}  # fmt: skip

    def kernels(self) -> Any:
        """Attention, loss and layers, in processes of their own."""
        if self._gpus and find_spec("flash_attn") is None:
            self.untested.append("flash_attention_2: flash-attn is not installed")
        small, shape = ([], "1.5b") if self._gpus else (["--small"], "demo")
        found = json.loads(self._run("benchmarks.gpu_kernels", small).splitlines()[-1])
        layers = self._run("benchmarks.lean_layers", [f"--shape={shape}"]).splitlines()[-1]
        return found | {"lean layers": json.loads(layers)}

    def curve(self) -> dict[str, Any]:
        """Largest relative difference of a loss from plain torch on one rank, by engine and ranks.

        float32 runs take sdpa, as no varlen kernel computes in it; bfloat16 what `auto` says.
        """
        found: dict[str, Any] = {}
        for dtype, attention in (("float32", "sdpa"), ("bfloat16", "auto")):
            flags = {"dtype": dtype, "attention": attention}
            reference = self._losses("torch", 1, flags)
            for ranks in dict.fromkeys((1, self._gpus or 2)):
                for engine in ("torch", "deepspeed", "fsdp"):
                    losses = self._losses(engine, ranks, flags)
                    worst = max(abs(losses[s] / reference[s] - 1) for s in reference)
                    found[f"{engine}, {ranks} ranks, {dtype}"] = worst
        return found

    def evaluation(self) -> dict[str, Any]:
        """Accuracy and equal answers of the two back-ends on the demo's untrained model."""
        if find_spec("vllm") is None:
            self.untested.append("vLLM: not installed")
            return {}
        answers = {}
        for backend in ("vllm", "hf"):
            run_dir = self._directory / f"evaluate-{backend}"
            flags = {**self._inputs, **EVALUATION, "eval_backend": backend, "output_dir": run_dir}
            began = time.monotonic()
            self._run("sft_dist.evaluate", as_flags(flags))
            (path,) = run_dir.glob("evaluations/*/*/completions.jsonl")
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            answers[backend] = time.monotonic() - began, {r["id"]: r["response"] for r in rows}
        (vllm_seconds, ours), (hf_seconds, theirs) = answers["vllm"], answers["hf"]
        same = sum(ours[name] == theirs[name] for name in ours)
        return {"same greedy answers": f"{same} of {len(ours)}", "vllm seconds": vllm_seconds,
                "hf seconds": hf_seconds}  # fmt: skip

    def throughput(self) -> Any:
        """The 1.5B shape on a GPU, 49M on a CPU; needs MATH and a tokenizer."""
        given = self._arguments
        if not (given.data_path and given.tokenizer_path):
            self.untested.append("throughput and memory: --data_path and --tokenizer_path")
            return {}
        command = [sys.executable, HERE / "train_throughput.py", "--data_path", given.data_path,
                   "--tokenizer_path", given.tokenizer_path, "--results_dir", self._directory,
                   "--make_model", "1.5b" if self._gpus else "49m"]  # fmt: skip
        if given.peer_path:
            command += ["--peer_path", given.peer_path]
        elif find_spec("trl") is None:
            self.untested.append("TRL beside us: not installed, no --peer_path")
            command += ["--sides", "ours-torch", "ours-deepspeed"]
        if not self._gpus:
            command += ["--rounds", "1"]
        subprocess.run(list(map(str, command)), check=True)
        (path,) = self._directory.glob("train_throughput-*.json")
        return json.loads(path.read_text())

    def _losses(self, engine: str, ranks: int, flags: dict[str, str]) -> dict[int, float]:
        run_dir = self._directory / f"{engine}-{ranks}-{flags['dtype']}"
        if not run_dir.exists():
            settings = {**self._inputs, **CURVE, **flags, "engine": engine, "output_dir": run_dir}
            launcher = ["--standalone", f"--nproc_per_node={ranks}", "-m", "sft_dist.train", "--"]
            self._run("torch.distributed.run", [*launcher, *as_flags(settings)])
        rows = last_by(read_rows(run_dir), "step")
        return {step: row["train/loss"] for step, row in rows.items()}

    def _run(self, module: str, words: list[str]) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *words], capture_output=True, text=True
        )
        if done.returncode != 0:
            sys.exit(f"{module} {' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout


def as_flags(settings: dict[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


if __name__ == "__main__":
    main()
