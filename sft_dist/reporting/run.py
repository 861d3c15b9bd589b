"""All that the page shows of one run, as plain values."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sft_dist.config import TrainConfig
from sft_dist.durable import read_json
from sft_dist.reporting import summary
from sft_dist.reporting.checkpoints import Checkpoint, read_checkpoints
from sft_dist.reporting.evaluations import Evaluation, read_evaluations
from sft_dist.reporting.run_files import (
    ENVIRONMENT,
    EVALUATIONS,
    METRICS,
    STATUS,
    number,
    read_settings,
    text,
)
from sft_dist.reporting.scores import Scores, read_scores, recorded_only
from sft_dist.reporting.state import read_progress
from sft_dist.reporting.timeline import events, spans
from sft_dist.reporting.training import Row, Training, curve_columns


@dataclass(frozen=True)
class RunView:
    """`data` for the page; `scores` hold problems and answers by the names it calls them by."""

    data: dict[str, Any]
    scores: Scores


def run_dir_fault(path: Path) -> str | None:
    """What is wrong where nothing in `path` is a run's; None for a run directory."""
    if any((path / name).exists() for name in (STATUS, METRICS, EVALUATIONS)):
        return None
    return (
        f"RUN_DIR: expected a directory with {STATUS}, {METRICS} or {EVALUATIONS}/, found none of "
        f"them in {path}; give a run's --output_dir"
    )


def read_run(run_dir: Path, *, prefix: str = "") -> RunView:
    """Read a run; what is missing or damaged is left out and noted. `prefix` keeps names apart."""
    settings = read_settings(run_dir)
    state, training = read_progress(run_dir, settings)
    all_evaluations, checkpoints = read_evaluations(run_dir), read_checkpoints(run_dir)
    scores = read_scores(run_dir, all_evaluations, settings, prefix=prefix)
    evaluations = scores.evaluations + recorded_only(training, scores.evaluations, settings)
    evaluations.sort(key=lambda e: (e["series"], e["step"]))
    happened = events(run_dir, training, all_evaluations, checkpoints=checkpoints, state=state)
    data = {
        "name": run_dir.absolute().name,
        "path": str(run_dir),
        "state": {**asdict(state), "headline": state.headline},
        "sentences": _sentences(_with_model(settings, all_evaluations), training, evaluations),
        "step": training.step,
        "totalSteps": training.total_steps,
        "secondsLeft": training.seconds_left if state.headline == "running" else None,
        "curves": curve_columns(training.rows),
        "attempts": [asdict(attempt) for attempt in training.attempts],
        "startup": _startup(training.rows),
        "evaluations": evaluations,
        "spans": [asdict(span) for span in spans(training, all_evaluations)],
        "events": [asdict(event) for event in happened],
        "checkpoints": [_checkpoint(c, all_evaluations) for c in checkpoints],
        "settings": settings,
        "changed": _changed(settings),
        "environment": read_json(run_dir / ENVIRONMENT) or {},
        "notes": _notes(run_dir, training, all_evaluations, scores),
    }
    return RunView(data, scores)


def _with_model(settings: Row, evaluations: list[Evaluation]) -> Row:
    """The settings; of a run that only evaluates, with the model that was asked about."""
    asked = [e.request["model_dir"] for e in evaluations if text(e.request.get("model_dir"))]
    return settings if settings or not asked else {"model_path": asked[0]}


def _sentences(settings: Row, training: Training, evaluations: list[dict[str, Any]]) -> list[str]:
    sentences = [summary.what_trained(settings, training) + "."]
    main = [e for e in evaluations if e["series"] == 0]
    if not main:
        return [*sentences, "No evaluation has been graded yet."]
    sentences.append(summary.from_where_to_where(main[0], main[-1]))
    return [*sentences, *filter(None, [summary.best_of(main)])]


def _checkpoint(checkpoint: Checkpoint, evaluations: list[Evaluation]) -> dict[str, Any]:
    """With the fingerprint of its weights, which an evaluation of them computed."""
    prints = [
        e.fingerprint
        for e in evaluations
        if Path(str(e.request.get("model_dir"))).name == checkpoint.name
    ]
    return {**asdict(checkpoint), "fingerprint": prints[-1] if prints else None}


def _startup(rows: list[Row]) -> list[dict[str, Any]]:
    """What each start cost, by part (s)."""
    prefix, suffix = "startup/", "_seconds"
    return [
        {
            "attempt": row.get("attempt"),
            "parts": {
                name.removeprefix(prefix).removesuffix(suffix): value
                for name, value in row.items()
                if name.startswith(prefix) and number(value) is not None
            },
        }
        for row in rows
        if any(name.startswith(prefix) for name in row)
    ]


def _changed(settings: Row) -> list[str]:
    """Settings that are not the defaults of this version."""
    defaults = TrainConfig().flat()
    return [name for name, value in settings.items() if defaults.get(name, value) != value]


def _notes(
    run_dir: Path, training: Training, evaluations: list[Evaluation], scores: Scores
) -> list[str]:
    """What a reader must know about the page: what is damaged or missing."""
    notes = []
    if training.damaged:
        lines = ", ".join(map(str, training.damaged[:10]))
        notes.append(f"{METRICS}: {len(training.damaged)} damaged lines passed over ({lines}).")
    if not (run_dir / METRICS).exists():
        notes.append(f"{METRICS} is missing: there are no curves.")
    states = {state: [e.step for e in evaluations if e.state == state] for state in
              ("waiting", "claimed", "generated", "failed")}  # fmt: skip
    words = {"waiting": "wait for a worker", "claimed": "are being generated",
             "generated": "are not graded yet", "failed": "failed"}  # fmt: skip
    for state, steps in states.items():
        if steps:
            notes.append(f"Evaluations of steps {', '.join(map(str, steps))} {words[state]}.")
    shown = len(scores.answers)
    graded = len({(e.series, e.step) for e in evaluations if e.state == "graded"})
    if graded > shown:
        notes.append(f"{graded - shown} graded evaluations have no readable answers.")
    return notes
