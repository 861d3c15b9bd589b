"""What a check says: fine, worth knowing, worth a look, or a reason not to start."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sft_dist.errors import counted

Level = Literal["ok", "note", "warning", "no-go"]


@dataclass(frozen=True)
class Finding:
    """One line of the report; further lines of `text` are indented under it."""

    check: str
    level: Level
    text: str


def render(findings: Sequence[Finding]) -> str:
    """The report: every finding, then go or no-go with the reasons."""
    width = max(len(f.check) for f in findings)
    lines = []
    for finding in findings:
        first, *more = finding.text.splitlines() or [""]
        lines.append(f"{finding.level:8} {finding.check:{width}}  {first}")
        lines += [f"{'':8} {'':{width}}  {line}" for line in more]
    reasons = [f for f in findings if f.level == "no-go"]
    warnings = sum(f.level == "warning" for f in findings)
    if not reasons:
        return "\n".join([*lines, "", f"go ({counted(warnings, 'warning')})"])
    told = [f"  {i}. {f.check}: {f.text.splitlines()[0]}" for i, f in enumerate(reasons, 1)]
    return "\n".join([*lines, "", "no-go:", *told])


def is_go(findings: Sequence[Finding]) -> bool:
    """Whether nothing speaks against starting."""
    return all(finding.level != "no-go" for finding in findings)


def gib(count: float) -> str:
    """Bytes for people."""
    if count < 2**30:
        return f"{count / 2**20:.0f} MiB"
    return f"{count / 2**30:.1f} GiB" if count < 2**34 else f"{count / 2**30:.0f} GiB"
