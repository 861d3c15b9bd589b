"""Score any checkpoint or base model: `python -m sft_dist.evaluate`, `sft-evaluate`.

    python -m sft_dist.evaluate --model_path outputs/run/checkpoint-500 --data_path MATH

The same queue, worker and grader as during training; the result is a run directory without
checkpoints.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sft_dist.arguments import parse_evaluate_config
from sft_dist.config import TrainConfig
from sft_dist.errors import ConfigError, EvaluationError, SftDistError
from sft_dist.runtime.run_directory import write_status
from sft_dist.validation import config_faults

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Exit codes: 0 scored, 1 failed, 2 cannot be run."""
    try:
        config, scoring = parse_evaluate_config(
            sys.argv[1:] if argv is None else argv, checks=(config_faults, evaluate_faults)
        )
        if scoring.regrade:
            graded = Path(scoring.regrade)
            grade_again(graded)
        else:
            summary = evaluate(config)
            graded = Path(summary["run_dir"])
            print(summary_text(summary), flush=True)
        if scoring.second_grader == "math_verify":
            compare_graders(graded)
    except SftDistError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def evaluate_faults(config: TrainConfig) -> list[str]:
    """Settings that mean something in training only."""
    faults = []
    if config.evaluation.eval_placement == "off":
        faults.append("--eval_placement off: there is nothing else to do here; leave it out")
    if config.checkpoint.resume_from_checkpoint:
        faults.append("--resume_from_checkpoint: name the checkpoint with --model_path")
    return faults


def evaluate(config: TrainConfig) -> dict[str, Any]:
    """Score `config.model.model_path`; the content of `summary.json`.

    Raises:
        EvaluationError: when it cannot be scored, saying why.
    """
    from sft_dist.data.dataset import load_evaluation_problems
    from sft_dist.evaluation.session import EvaluationSession
    from sft_dist.model import load_tokenizer, local_model_dir, stop_token_id
    from sft_dist.tracking.console import set_up_logging
    from sft_dist.tracking.record import MetricsRecord

    set_up_logging(rank=0, debug=config.tracking.debug)
    data = replace(config.data, eval_data_path=config.data.eval_data_path or config.data.data_path)
    examples = load_evaluation_problems(data, config.evaluation.max_eval_samples)
    model_dir = local_model_dir(config.model.model_path)
    tokenizer = load_tokenizer(str(model_dir))
    run_dir = _run_dir(config, model_dir)
    write_status(run_dir, "running", "evaluating")
    session = EvaluationSession(
        config,
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
    if not results or results[0].error:
        reason = results[0].error if results else "no result within --eval_drain_timeout"
        write_status(run_dir, "failed", str(reason))
        raise EvaluationError(f"{model_dir} could not be scored: {reason}; see {run_dir}/logs")
    record = MetricsRecord(run_dir, attempt=1)
    record.write({"eval/step": step, **results[0].metrics})
    record.close()
    write_status(run_dir, "finished", "evaluated")
    return {**results[0].summary, "run_dir": str(run_dir)}


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


def summary_text(summary: Mapping[str, Any]) -> str:
    """A closing table for people: overall, by subject, by level."""
    metrics = summary["metrics"]
    lines = [
        f"accuracy {metrics['eval/accuracy']:.1%} ± {metrics['eval/accuracy_stderr']:.1%} of "
        f"{metrics['eval/num_problems']:.0f} problems (grader {summary['grader_version']}, prompt "
        f"{summary['prompt_name']}, weights {summary['weights_fingerprint'][:12]})"
    ]
    lines += [
        f"  {name.removeprefix('eval/'):<28} {value:.4g}"
        for name, value in metrics.items()
        if not name.startswith(("eval/accuracy", "eval/num_problems"))
    ]
    for title in ("by_subject", "by_level"):
        lines.append(title.replace("_", " "))
        lines += [
            f"  {name:<28} {row['accuracy']:6.1%} of {row['num_problems']}"
            for name, row in summary[title].items()
        ]
    return "\n".join([*lines, f"completions, grades and summary: {summary['run_dir']}/evaluations"])


def _run_dir(config: TrainConfig, model_dir: Path) -> Path:
    name = f"evaluate-{model_dir.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    run_dir = Path(config.checkpoint.output_dir or Path("outputs", name))
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    return run_dir


if __name__ == "__main__":
    main()
