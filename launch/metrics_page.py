"""Print docs/metrics.md from the table of metrics: `python -m launch.metrics_page`."""

from sft_dist.tracking.metrics import METRICS

HEAD = """# Metrics

The names in `metrics.jsonl` and in wandb. Made by `python -m launch.metrics_page`; a test keeps it
equal to `sft_dist/tracking/metrics.py`.

A training row has `step`, an evaluation row `eval/step`; both have `time` (Unix, seconds) and
`attempt`. The file is append-only: a resumed run repeats the steps after its checkpoint, and a
reader takes the last row of a step. Metrics of a prompt other than the training prompt are
`eval/<prompt>/...`. A metric that is undefined (the length of right answers when there is none) is
left out.

| name | unit | meaning |
| --- | --- | --- |
"""


def page() -> str:
    """The whole page."""
    rows = (f"| `{name}` | {metric.unit} | {metric.meaning} |" for name, metric in METRICS.items())
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(page(), end="")
