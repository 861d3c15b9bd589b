"""Score any checkpoint or base model: `python -m sft_dist.evaluate`, `sft-evaluate`.

    python -m sft_dist.evaluate --model_path outputs/run/checkpoint-500 --data_path MATH
    python -m sft_dist.evaluate --serve outputs/run
    python -m sft_dist.evaluate --regrade outputs/run

The first: the same queue, worker and grader as during training; the result is a run directory
without checkpoints. The second serves a run that is trained with `--eval_placement external`.
"""

import json
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft_dist.arguments import parse_evaluate_config, read_run_config
from sft_dist.config import TrainConfig
from sft_dist.durable import read_json
from sft_dist.errors import ConfigError, EvaluationError, SftDistError
from sft_dist.runtime.run_directory import write_status
from sft_dist.validation import config_faults

if TYPE_CHECKING:
    from sft_dist.evaluation.scoring import EvaluationResult

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exit codes: 0 scored, 1 failed, 2 cannot be run."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        config, scoring = parse_evaluate_config(arguments, checks=(config_faults, evaluate_faults))
        if scoring.serve:
            serve(arguments, Path(scoring.serve), idle_seconds=scoring.serve_idle_timeout)
            return
        if scoring.regrade:
            graded = Path(scoring.regrade)
            grade_again(graded)
        else:
            graded, results = evaluate(config)
            for result in results:
                print(result_text(result), flush=True)
            print(f"completions, grades and summary: {graded}/evaluations", flush=True)
        if scoring.second_grader == "math_verify":
            compare_graders(graded)
    except SftDistError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def evaluate_faults(config: TrainConfig) -> list[str]:
    """Settings that mean something in training only."""
    faults = []
    placement = config.evaluation.eval_placement
    if placement in ("off", "external", "reserved"):
        faults.append(
            f"--eval_placement {placement}: means something in training only; leave it out"
        )
    if config.checkpoint.resume_from_checkpoint:
        faults.append("--resume_from_checkpoint: name the checkpoint with --model_path")
    return faults


def evaluate(config: TrainConfig) -> tuple[Path, list["EvaluationResult"]]:
    """Score `config.model.model_path`: the run directory, and a result for each prompt.

    Raises:
        EvaluationError: when it cannot be scored, saying why.
    """
    from sft_dist.data.dataset import load_evaluation_problems
    from sft_dist.data.records import has_split
    from sft_dist.evaluation.placement import OWN_MEMORY
    from sft_dist.evaluation.session import EvaluationSession
    from sft_dist.model import load_tokenizer, local_model_dir, stop_token_id
    from sft_dist.tracking.console import set_up_logging
    from sft_dist.tracking.record import MetricsRecord

    set_up_logging(rank=0, debug=config.tracking.debug)
    data = config.data
    if not (data.eval_data_path or data.holdout):
        if not has_split(data.data_path, "test"):
            logger.warning(
                "%s names no test split: all of it is scored, what was trained on too; --holdout N "
                "scores what a run with it kept", data.data_path,
            )  # fmt: skip
        data = replace(data, eval_data_path=data.data_path)
    examples = load_evaluation_problems(data, config.evaluation.max_eval_samples)
    model_dir = local_model_dir(config.model.model_path)
    tokenizer = load_tokenizer(str(model_dir))
    run_dir = _run_dir(config, model_dir)
    write_status(run_dir, "running", "evaluating")
    memory = config.evaluation.eval_gpu_memory or OWN_MEMORY  # nobody trains beside it
    settings = replace(config.evaluation, eval_gpu_memory=memory)
    session = EvaluationSession(
        replace(config, evaluation=settings),
        run_dir,
        model_dir=model_dir,
        examples=examples,
        tokenizer=tokenizer,
        stop_token_id=stop_token_id(str(model_dir), tokenizer),
        beside_training_on_cpu=False,
    )
    step = trained_steps(model_dir)
    session.submit(step, model_dir)
    deadline = time.monotonic() + config.evaluation.eval_drain_timeout
    try:
        results = list(session.drain(lambda: time.monotonic() > deadline))
    finally:
        session.close()
    record = MetricsRecord(run_dir, attempt=1)
    for result in results:
        if result.error is None:
            record.write(result.row)
    record.close()
    reasons = [str(result.error) for result in results if result.error is not None]
    if reasons or not results:
        reason = reasons[0] if reasons else "no result within --eval_drain_timeout"
        write_status(run_dir, "failed", reason)
        raise EvaluationError(f"{model_dir} could not be scored: {reason}; see {run_dir}/logs")
    write_status(run_dir, "finished", "evaluated")
    return run_dir, results


def serve(argv: Sequence[str], run_dir: Path, *, idle_seconds: float) -> None:
    """Serve the evaluations of `run_dir` until its run has ended; settings not in `argv` are its.

    Raises:
        EvaluationError: when the run does not begin in time, or no worker can be kept alive.
    """
    from sft_dist.evaluation.placement import gpus
    from sft_dist.evaluation.server import EvaluationServer
    from sft_dist.evaluation.worker_group import worker_group, worker_options
    from sft_dist.model import local_model_dir
    from sft_dist.tracking.console import set_up_logging

    set_up_logging(rank=0, debug=False)
    wait_for_run(run_dir, idle_seconds)
    config, _ = parse_evaluate_config(argv, checks=(), inherited=read_run_config(run_dir))
    settings = config.evaluation
    options = worker_options(config, local_model_dir(config.model.model_path), alone=True)
    run_dir = run_dir.absolute()
    server = EvaluationServer(
        run_dir,
        worker=worker_group(
            run_dir, options, gpus()[: settings.eval_gpus],
            log_name=f"evaluation_server-{platform.node()}-{os.getpid()}",
        ),
        options=options,
        training_prompt=config.data.prompt,
        record=lambda row: append_row(run_dir, row),
        run_is_over=lambda: run_state(run_dir) in ("finished", "failed"),
        idle_seconds=idle_seconds,
    )  # fmt: skip
    # Leaving by an exception stops the worker and releases what this server holds.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    logger.info("serving %s", run_dir)
    logger.info("left: %s", server.run())


def wait_for_run(run_dir: Path, seconds: float) -> None:
    """Wait until a trainer has opened `run_dir`, so that both jobs may be submitted together."""
    deadline = time.monotonic() + seconds
    while not (run_dir / "config.yaml").is_file():
        if time.monotonic() > deadline:
            raise EvaluationError(
                f"--serve {run_dir}: expected a run to begin there within --serve_idle_timeout = "
                f"{seconds:g} s, found no config.yaml"
            )
        time.sleep(0.5)


def run_state(run_dir: Path) -> str:
    """`state` of status.json; empty where there is none."""
    return str((read_json(run_dir / "status.json") or {}).get("state", ""))


def append_row(run_dir: Path, row: Mapping[str, Any]) -> None:
    """Log a row for a trainer that has gone, as of its last attempt."""
    from sft_dist.tracking.record import MetricsRecord, read_rows

    attempt = max((int(found.get("attempt", 1)) for found in read_rows(run_dir)), default=1)
    record = MetricsRecord(run_dir, attempt)
    record.write(row)
    record.close()


def grade_again(path: Path) -> None:
    """Grade the stored completions below `path` and tell what changed."""
    from sft_dist.evaluation.regrading import regrade

    for regraded in regrade(path):
        result, before = regraded.result, regraded.accuracy_before
        accuracy = next(v for k, v in result.metrics.items() if k.endswith("/accuracy"))
        earlier = "" if before is None else f" (before: {before:.1%})"
        print(
            f"step {result.step}: accuracy {accuracy:.1%}{earlier}, grader "
            f"{result.summary['grader_version']}, {len(regraded.changed)} verdicts changed"
        )
        for problem_id, old, new in regraded.changed:
            print(f"  {problem_id}: {old} -> {new}")


def compare_graders(path: Path) -> None:
    """Ask Math-Verify about the same completions and list the disagreements."""
    from sft_dist.evaluation.regrading import DISAGREEMENTS_FILE, disagreements

    for queued, rows in disagreements(path):
        total = queued.request.num_problems
        print(f"step {queued.request.step}: Math-Verify disagrees on {len(rows)} of {total}")
        for row in rows:
            second = "correct" if row["second"] else "wrong"
            print(
                f"  {row['id']}: gold {row['gold']!r}, answer {row['extracted']!r}: "
                f"{row['verdict']}, Math-Verify {second}"
            )
        print(f"  in {queued.directory / DISAGREEMENTS_FILE}")


def trained_steps(model_dir: Path) -> int:
    """Updates a checkpoint of ours has had, by its manifest; 0 for any other model."""
    manifest = model_dir / "manifest.json"
    return int(json.loads(manifest.read_text())["step"]) if manifest.is_file() else 0


def result_text(result: "EvaluationResult") -> str:
    """A closing table for people: overall, by subject, by level."""
    summary = result.summary
    values = {name.rpartition("/")[2]: value for name, value in result.metrics.items()}
    lines = [
        f"accuracy {values['accuracy']:.1%} ({values['accuracy_low']:.1%} to "
        f"{values['accuracy_high']:.1%}) of {values['num_problems']:.0f} problems (grader "
        f"{summary['grader_version']}, prompt {summary['prompt_name']}, {summary['decoding']}, "
        f"weights {summary['weights_fingerprint'][:12]})"
    ]
    lines += [
        f"  {name:<28} {value:.4g}"
        for name, value in values.items()
        if name != "accuracy" and not name.startswith(("accuracy_l", "accuracy_h", "accuracy_sub"))
    ]
    for title in ("by_subject", "by_level"):
        lines.append(title.replace("_", " "))
        lines += [
            f"  {name:<28} {row['accuracy']:6.1%} ({row['low']:.1%} to {row['high']:.1%}) "
            f"of {row['num_problems']}"
            for name, row in summary[title].items()
        ]
    return "\n".join(lines)


def _run_dir(config: TrainConfig, model_dir: Path) -> Path:
    name = f"evaluate-{model_dir.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    run_dir = Path(config.checkpoint.output_dir or Path("outputs", name))
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    return run_dir


if __name__ == "__main__":
    main()
