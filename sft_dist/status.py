"""What is a run doing? `python -m sft_dist.status RUN_DIR`, `sft-status`. From the files alone.

    python -m sft_dist.status outputs/run           # for people
    python -m sft_dist.status outputs/run --json    # for scripts

Works on any host that sees the run directory, on running and on dead runs, and touches nothing.
Exit codes: 0 told, 2 not a run directory.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from sft_dist.reporting.evaluations import Evaluation, WorkerAttempt
from sft_dist.reporting.run import run_dir_fault
from sft_dist.reporting.state import RunNow, read_now


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parse(argv)
    fault = run_dir_fault(options.run_dir)
    if fault:
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)
    facts = status_facts(read_now(options.run_dir))
    print(json.dumps(facts, indent=2) if options.json else status_text(options.run_dir, facts))


def status_facts(now: RunNow) -> dict[str, Any]:
    """All that is known, by name; None for what is not. Times are Unix, durations in seconds."""
    state, training = now.state, now.training
    going = state.state == "running" and not state.is_dead
    last = now.checkpoints[-1] if now.checkpoints else None
    return {
        "state": state.headline,
        "reason": state.reason,
        "trainer": state.life,
        "lock": state.holder,
        "step": training.step,
        "total_steps": training.total_steps,
        "attempt": training.attempts[-1].number if training.attempts else None,
        "seconds_per_step": training.seconds_per_step,
        "tokens_per_second": training.tokens_per_second,
        "seconds_left": training.seconds_left if going else None,
        "last_row_seconds_ago": _ago(state.now, training.last_time),
        "damaged_rows": len(training.damaged),
        "open_evaluations": [_evaluation_facts(e, state.now) for e in now.open_evaluations],
        "last_checkpoint": last and {
            "name": last.name,
            "seconds_ago": _ago(state.now, last.written),
            "faults": last.faults,
        },
        "last_fault": now.last_fault and {
            "what": now.last_fault[1],
            "seconds_ago": _ago(state.now, now.last_fault[0]),
        },
    }  # fmt: skip


def status_text(run_dir: Path, facts: dict[str, Any]) -> str:
    """A few lines for people."""
    lines = [f"{run_dir}: {_headline(facts)}", f"  trainer     {_trainer(facts)}"]
    lines.append(f"  step        {_progress(facts)}")
    lines.append(f"  checkpoint  {_checkpoint(facts['last_checkpoint'])}")
    found = [_evaluation(e, facts["trainer"]) for e in facts["open_evaluations"]]
    evaluations = found or ["none open"]
    lines += [f"  {'evaluation' if i == 0 else '':<11} {e}" for i, e in enumerate(evaluations)]
    fault = facts["last_fault"]
    lines.append(
        f"  last fault  {fault['what']} ({duration(fault['seconds_ago'])} ago)"
        if fault
        else "  last fault  none"
    )
    if facts["damaged_rows"]:
        lines.append(f"  record      {facts['damaged_rows']} damaged lines in metrics.jsonl")
    return "\n".join(lines)


def duration(seconds: float | None) -> str:
    """`0:01:05`, `2 days, 3:00:00`; `?` for None."""
    return "?" if seconds is None else str(timedelta(seconds=max(0, round(seconds))))


def _headline(facts: dict[str, Any]) -> str:
    reason = f" ({facts['reason']})" if facts["reason"] else ""
    if facts["state"] == "dead":
        reason = " (it was running, and its process is gone); --resume_from_checkpoint latest"
    return facts["state"] + reason


def _trainer(facts: dict[str, Any]) -> str:
    life = {"alive": "alive", "dead": "not running", "unknown": "unknown: no lock here"}
    holder = f", {facts['lock']}" if facts["lock"] and facts["trainer"] == "alive" else ""
    row = facts["last_row_seconds_ago"]
    last = f"; last row {duration(row)} ago" if row is not None else "; no row yet"
    return life[facts["trainer"]] + holder + last


def _progress(facts: dict[str, Any]) -> str:
    parts = [f"{facts['step']} of {facts['total_steps'] or '?'}"]
    if facts["attempt"] and facts["attempt"] > 1:
        parts.append(f"attempt {facts['attempt']}")
    if facts["seconds_per_step"] is not None:
        parts.append(f"{facts['seconds_per_step']:.2f} s a step")
    if facts["tokens_per_second"] is not None:
        parts.append(f"{facts['tokens_per_second']:,.0f} tokens/s")
    if facts["seconds_left"] is not None:
        parts.append(f"{duration(facts['seconds_left'])} left")
    return ", ".join(parts)


def _checkpoint(last: dict[str, Any] | None) -> str:
    if last is None:
        return "none"
    damage = f"; damaged: {'; '.join(last['faults'][:3])}" if last["faults"] else ""
    return f"{last['name']}, {duration(last['seconds_ago'])} ago{damage}"


def _evaluation_facts(evaluation: Evaluation, now: float) -> dict[str, Any]:
    claim = evaluation.attempts[-1] if evaluation.attempts else None
    return {
        "step": evaluation.step,
        "prompt": evaluation.prompt,
        "state": evaluation.state,
        "asked_seconds_ago": _ago(now, evaluation.asked),
        "num_problems": evaluation.num_problems,
        "claim": claim and _claim_facts(claim, now),
    }


def _claim_facts(claim: WorkerAttempt, now: float) -> dict[str, Any]:
    return {
        "worker": claim.worker,
        "attempt": claim.attempt,
        "state": claim.state,
        "completed": claim.completed,
        "heartbeat_seconds_ago": _ago(now, claim.seen),
    }


def _evaluation(facts: dict[str, Any], trainer: str) -> str:
    name = f"step {facts['step']} ({facts['prompt']}), {facts['num_problems'] or '?'} problems: "
    claim = facts["claim"]
    if facts["state"] == "generated":
        return name + "generated, not graded yet"
    if facts["state"] == "waiting" or claim is None:
        whom = "a worker, or the run to go on" if trainer == "dead" else "a worker"
        return f"{name}waits for {whom} since {duration(facts['asked_seconds_ago'])}"
    return (
        f"{name}{claim['completed']} done by {claim['worker']} (attempt {claim['attempt']}, "
        f"heartbeat {duration(claim['heartbeat_seconds_ago'])} ago)"
    )


def _ago(now: float, then: float | None) -> float | None:
    return None if then is None else round(max(0.0, now - then), 1)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sft_dist.status",
        description="Say what a running or dead run is doing, from its files alone.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a run's --output_dir")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
