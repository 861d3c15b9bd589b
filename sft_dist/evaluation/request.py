"""What an evaluation asks for, and where its files lie. Plain data: no torch, no engine, no clock.

A request names everything that decides its completions: the weights (by fingerprint, not only by
path), the prompt, the decoding and the problems. Their short hash, the *spec*, names the
directory, so asking twice for the same thing is asking once:

    RUN/evaluations/problems-<hash>.jsonl                  shared by the requests of a run
    RUN/evaluations/step-000500/<spec>/request.json
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

EVALUATIONS = "evaluations"
REQUEST_FILE = "request.json"


@dataclass(frozen=True)
class Problem:
    """One problem as the generator gets it: token ids, so that training and evaluation agree.

    `prompt` is the text of `prompt_token_ids`; `answer` is the gold answer, None where the data
    has none (such a response can only be graded wrong).
    """

    id: str
    prompt: str
    prompt_token_ids: list[int]
    problem: str
    answer: str | None
    subject: str
    level: int | None


@dataclass(frozen=True)
class Sampling:
    """How to decode: `temperature` 0 is greedy; `max_new_tokens` counts the stop token too.

    Generation stops at `stop_token_ids` only, whatever the model's generation config says.
    `seed` matters only when sampling; each answer draws from its own stream of it. `num_samples`
    answers are drawn to each problem.
    """

    max_new_tokens: int
    temperature: float = 0.0
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0
    num_samples: int = 1

    def describe(self) -> str:
        """For people, as every row of metrics names it."""
        limit = f"{self.max_new_tokens} tokens"
        if self.temperature == 0.0:
            return f"greedy, {limit}"
        return f"T={self.temperature:g}, n={self.num_samples}, seed {self.seed}, {limit}"


@dataclass(frozen=True)
class EvaluationRequest:
    """One scoring of one set of weights. `problems_file` is relative to the run directory."""

    step: int
    model_dir: str
    weights_fingerprint: str
    prompt_name: str
    form: str
    sampling: Sampling
    problems_file: str
    num_problems: int

    @property
    def spec(self) -> str:
        """Short hash of all that decides the completions; the step and the path do not."""
        parts = [
            self.weights_fingerprint,
            self.prompt_name,
            self.form,
            asdict(self.sampling),
            Path(self.problems_file).name,
        ]
        return short_hash(json.dumps(parts, sort_keys=True))

    @property
    def num_completions(self) -> int:
        """Answers wanted: `num_samples` to each problem."""
        return self.num_problems * self.sampling.num_samples

    def directory(self, run_dir: Path) -> Path:
        """Where this request's files lie."""
        return run_dir / EVALUATIONS / step_directory(self.step) / self.spec

    def to_json(self) -> dict[str, Any]:
        """The content of request.json; `spec` is there for people, `from_json` recomputes it."""
        row = {**asdict(self), "spec": self.spec}
        row["sampling"]["stop_token_ids"] = list(self.sampling.stop_token_ids)
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Undo `to_json`. Raises KeyError or TypeError where fields are missing or unknown."""
        fields = {name: value for name, value in row.items() if name != "spec"}
        sampling = dict(fields.pop("sampling"))
        sampling["stop_token_ids"] = tuple(sampling["stop_token_ids"])
        return cls(**fields, sampling=Sampling(**sampling))


def step_directory(step: int) -> str:
    """Name of the directory of a step's evaluations; sorts as the steps do."""
    return f"step-{step:06d}"


def short_hash(text: str) -> str:
    """12 hex digits of the text's SHA-256: names a directory, protects nothing."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def problems_text(problems: Sequence[Problem]) -> str:
    """The content of the problems file: one JSON object a line, the order of `problems`."""
    return "".join(json.dumps(asdict(problem), sort_keys=True) + "\n" for problem in problems)


def problems_file(text: str) -> str:
    """Path, relative to the run directory, of the problems file with content `text`."""
    return f"{EVALUATIONS}/problems-{short_hash(text)}.jsonl"


def read_problems(path: Path) -> list[Problem]:
    """Read a problems file. Raises OSError where it cannot be read."""
    with path.open(encoding="utf-8") as lines:
        return [Problem(**json.loads(line)) for line in lines]
