"""The one file that is written: template, style, scripts, libraries, fonts and data in it.

Nothing is fetched: a content security policy in the page forbids it, and lets only the scripts run
whose hashes it names. Text of data and of models is never markup: it travels as JSON, and the
scripts make text nodes of it.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from sft_dist.reporting.graded import Answer
from sft_dist.reporting.run import RunView
from sft_dist.reporting.samples import Packed, answer_columns, evenly, problem_columns
from sft_dist.reporting.sweep import against_best

STYLES = ("uplot/uPlot.min.css", "katex/katex.min.css")
LIBRARIES = ("uplot/uPlot.iife.min.js", "katex/katex.min.js", "katex/auto-render.min.js")
LICENCES = ("uplot/LICENSE", "katex/LICENSE")
SCRIPTS = (
    "elements", "numbers", "parts", "charts", "overview", "curves", "accuracy", "heatmap",
    "changes", "mathematics", "samples", "sample", "timeline", "tables", "main",
)  # fmt: skip
"""In the order in which they stand in the page; each is `page/<name>.js`."""

LEAST_SAMPLES = 200
"""Where a run's last evaluation does not fit in whole, at least so many of it are tried."""

_FONT = re.compile(
    r'url\(fonts/([\w-]+\.woff2)\) format\("woff2"\)(?:,url\([^)]*\) format\("\w+"\))*'
)


def build_page(runs: Sequence[RunView]) -> str:
    """The page of one run, or of several side by side; less than 15 MB."""
    packed = _pack(runs)
    data = {
        "runs": [run.data for run in runs],
        "againstBest": against_best(runs),
        "parts": sorted(packed.parts),
    }
    names = ", ".join(str(run.data["name"]) for run in runs[:3])
    more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
    scripts = [*(_vendored(name) for name in LIBRARIES), _own_script()]
    values = {
        "POLICY": _policy(scripts),
        "TITLE": html.escape(f"{names}{more} - sft_dist report"),
        "STYLE": _style(),
        "LICENCES": html.escape("\n\n".join(_vendored(name) for name in LICENCES)),
        "DATA": _element("application/json", _json(data), "data"),
        "PARTS": "\n".join(_element("text/plain", text, k) for k, text in packed.parts.items()),
        "SCRIPTS": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    template = (_here() / "page" / "page.html").read_text(encoding="utf-8")
    # One pass: a value that happens to hold a placeholder is left alone.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _pack(runs: Sequence[RunView]) -> Packed:
    """Problems first, then the last evaluation of every run, the first, and the others."""
    packed = Packed()
    for run in runs:
        for name, problems in run.scores.problems.items():
            packed.add(name, problem_columns(problems))
    for name, answers, is_last in _by_importance(runs):
        packed.add(name, answer_columns(answers)) or (is_last and _pack_some(packed, name, answers))
    return packed


def _pack_some(packed: Packed, name: str, answers: Sequence[Answer]) -> bool:
    """A part of the answers, the largest of a few sizes that fits."""
    count = len(answers) // 2
    while count >= LEAST_SAMPLES:
        if packed.add(name, answer_columns(evenly(answers, count))):
            return True
        count //= 2
    return False


def _by_importance(runs: Sequence[RunView]) -> Iterable[tuple[str, list[Answer], bool]]:
    """(name, answers, whether it is the last of its run), most wanted first."""
    ranked = []
    for run in runs:
        names = [e["name"] for e in run.data["evaluations"] if e["name"] and e["series"] == 0]
        rest = [e["name"] for e in run.data["evaluations"] if e["name"] and e["series"] != 0]
        wanted = [*names[-1:], *names[:1], *reversed(names[1:-1]), *reversed(rest)]
        for rank, name in enumerate(dict.fromkeys(wanted)):
            ranked.append((rank, name, run.scores.answers[name]))
    for rank, name, answers in sorted(ranked, key=lambda item: item[0]):
        yield name, answers, rank == 0


@cache
def _style() -> str:
    """The libraries' and our style; fonts as data."""
    vendored = "\n".join(_vendored(name) for name in STYLES)
    return _FONT.sub(_font, vendored) + (_here() / "page" / "style.css").read_text(encoding="utf-8")


def _font(match: re.Match[str]) -> str:
    content = (_here() / "vendor" / "katex" / "fonts" / match[1]).read_bytes()
    encoded = base64.b64encode(content).decode("ascii")
    return f'url(data:font/woff2;base64,{encoded}) format("woff2")'


@cache
def _own_script() -> str:
    folder = _here() / "page"
    parts = [(folder / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "\n})();"


@cache
def _vendored(name: str) -> str:
    return (_here() / "vendor" / name).read_text(encoding="utf-8")


def _here() -> Traversable:
    return files("sft_dist.reporting")


def _policy(scripts: Iterable[str]) -> str:
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; font-src data:; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _json(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _element(kind: str, content: str, name: str) -> str:
    return f'<script type="{kind}" id="{name}">{content}</script>'
