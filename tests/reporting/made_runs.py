"""Run directories written by hand, in the layout that training leaves; always the same."""

import json
import math
import os
import random

import yaml

SUBJECTS = ("Algebra", "Counting & Probability", "Geometry", "Number Theory", "Prealgebra")
BEGAN = 1_750_000_000.0
GENERATION = {"backend": "vllm", "weights_proved": True, "seconds": 20.0, "load_seconds": 2.0}


def made_problems(count):
    return [
        {
            "id": f"test/{SUBJECTS[i % 5].lower().split()[0]}/{i}",
            "problem": f"What is $\\frac{{{i}}}{{3}} + {i % 7}$ if $x_{{{i}}} > 0$?",
            "prompt": f"Solve {i}",
            "prompt_token_ids": [1, 2, 3],
            "answer": str(i),
            "subject": SUBJECTS[i % 5],
            "level": i % 5 + 1,
        }
        for i in range(count)
    ]


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def at(path, seconds):
    os.utime(path, (BEGAN + seconds, BEGAN + seconds))


def training_row(step, *, attempt=1, steps_per_epoch=50, seconds=None, **more):
    time = BEGAN + (seconds if seconds is not None else 30 + 2 * step)
    return {
        "time": time, "attempt": attempt, "step": step, "train/step": step,
        "train/epoch": step / steps_per_epoch, "train/loss": 0.2 + 2 * math.exp(-step / 20),
        "train/objective": 0.2 + 2 * math.exp(-step / 20), "train/learning_rate": 1e-5,
        "train/grad_norm": 0.9, "train/grad_norm_preclip": 0.9 + (5 if step == 60 else 0),
        "train/token_accuracy": 0.8, "train/token_entropy": 0.4, "perf/step_seconds": 2.0,
        "perf/data_wait_seconds": 0.01, "perf/tokens_per_second": 9000.0 + step, "perf/mfu": 0.41,
        "perf/useful_token_share": 1.0, "perf/memory_gib": 12.5, **more,
    }  # fmt: skip


def evaluation_dir(run_dir, step, spec="0123456789ab"):
    return run_dir / "evaluations" / f"step-{step:06d}" / spec


def ask(run_dir, step, *, problems_file="evaluations/problems-1.jsonl", count=0, **more):
    """A request that nobody has claimed."""
    directory = evaluation_dir(run_dir, step)
    request = {
        "step": step, "model_dir": str(run_dir / f"checkpoint-{step}"), "prompt_name": "default",
        "weights_fingerprint": f"{step:04d}" + "f" * 60, "form": "boxed",
        "sampling": {"max_new_tokens": 512, "temperature": 0.0, "stop_token_ids": [0], "seed": 0},
        "problems_file": problems_file, "num_problems": count, **more,
    }  # fmt: skip
    write_json(directory / "request.json", request)
    at(directory / "request.json", 25 + 2 * step)
    return directory


def claim(directory, *, state="running", attempt=1, completed=3, **more):
    beat = {"worker": "worker-1", "state": state, "beat": 4, "completed": completed, "total": 9}
    write_json(directory / f"attempt-{attempt}" / "heartbeat.json", {**beat, **more})


def evaluate(run_dir, step, problems, *, skill, respond=None, **more):
    """A graded evaluation in which problem i is right where a fixed draw is below `skill`."""
    directory = ask(run_dir, step, count=len(problems), **more)
    write_lines(run_dir / "evaluations/problems-1.jsonl", problems)
    claim(directory, state="published")
    draw = random.Random(7)
    completions, grades = [], []
    for problem in problems:
        luck, own = draw.random(), random.Random(f"{step}{problem['id']}").random()
        right = 0.7 * luck + 0.3 * own < skill
        verdict = "correct" if right else ("no_answer" if luck > 0.95 else "wrong")
        said = problem["answer"] if right else "-1"
        response = f"We have $x^2 = {step}$, so the answer is $\\boxed{{{said}}}$."
        if respond is not None:
            response = respond(problem, right)
        completions.append(
            {"id": problem["id"], "response": response, "num_tokens": 40 + int(400 * luck),
             "finish_reason": "length" if luck > 0.95 else "stop", "mean_token_entropy": luck / 2}
        )  # fmt: skip
        grades.append(
            {"id": problem["id"], "verdict": verdict, "stage": "integer" if right else "numeric",
             "extracted": said, "gold": problem["answer"], "format_reward": 1.0,
             "answer_reward": float(right), "reward": float(right)}
        )  # fmt: skip
    write_lines(directory / "completions.jsonl", completions)
    write_lines(directory / "grades.jsonl", grades)
    write_json(directory / "attempt-1/generation.json", GENERATION)
    at(directory / "attempt-1/generation.json", 60 + 2 * step)
    summary = {"grader_version": "1.1.0", "metrics": {}, "generation": GENERATION}
    write_json(directory / "summary.json", summary)
    for name, seconds in (("completions.jsonl", 60), ("summary.json", 62)):
        at(directory / name, seconds + 2 * step)
    return directory


def checkpoint(run_dir, step, *, with_engine=True):
    directory = run_dir / f"checkpoint-{step}"
    files = {"model.safetensors": b"weights", "config.json": b"{}"}
    if with_engine:
        files["engine/.metadata"] = b"state"
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    listed = {
        name: {"size": len(c), "sha256": f"{step:04d}" + "a" * 60} for name, c in files.items()
    }
    write_json(directory / "manifest.json", {"format": 1, "step": step, "files": listed})
    at(directory / "manifest.json", 31 + 2 * step)
    return directory


SETTINGS = {
    "model_path": "models/Qwen2.5-Math-1.5B", "data_path": "data/MATH", "prompt": "default",
    "learning_rate": 2e-5, "num_epochs": 2, "max_steps": None, "global_batch_size": 256, "seed": 42,
}  # fmt: skip


def write_run_files(run_dir, *, state="finished", reason="all steps are done", **settings):
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump({**SETTINGS, **settings}))
    environment = {"command": ["python", "-m", "sft_dist.train"], "world_size": 8,
                   "packages": {"torch": "2.13.0", "vllm": None}, "host": "node1"}  # fmt: skip
    write_json(run_dir / "environment.json", environment)
    write_json(run_dir / "status.json", {"state": state, "reason": reason, "time": BEGAN + 300})


def make_run(
    run_dir, *, num_problems=60, problems=None, respond=None, skills=(0.3, 0.45, 0.6), **settings
):
    """A finished run of 100 steps: resumed once at step 51, three evaluations, two checkpoints."""
    write_run_files(run_dir, **settings)
    problems = problems or made_problems(num_problems)
    rows = [training_row(step) for step in range(1, 56)]
    rows += [training_row(step, attempt=2, seconds=90 + 2 * step) for step in range(51, 101)]
    rows[0]["startup/imports_seconds"], rows[0]["startup/total_seconds"] = 3.0, 9.0
    for step, skill in zip((0, 50, 100), skills, strict=True):
        evaluate(run_dir, step, problems, skill=skill, respond=respond)
        rows.append(
            {"time": BEGAN + 62 + 2 * step, "attempt": 1, "eval/step": step, "eval/accuracy": skill}
        )
    write_lines(run_dir / "metrics.jsonl", rows)
    for step in (50, 100):
        checkpoint(run_dir, step)
    return run_dir
