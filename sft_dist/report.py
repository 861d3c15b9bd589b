"""One page about a run, or about several: `python -m sft_dist.report RUN_DIR...`, `sft-report`.

    python -m sft_dist.report outputs/run                          # outputs/run/report.html
    python -m sft_dist.report outputs/sweep/*                      # side by side: comparison.html
    python -m sft_dist.report outputs/sweep/* --output sweep.html

The page needs no network and no server: open it, mail it, keep it. docs/report.md says what is on
it. Exit codes: 0 written, 1 could not be written, 2 not a run directory.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sft_dist.reporting.run import run_dir_fault
from sft_dist.reporting.run_files import REPORT
from sft_dist.reporting.writer import write_page

COMPARISON = Path("comparison.html")


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parse(argv)
    faults = report_faults(options.run_dirs, options.output)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        sys.exit(2)
    several = len(options.run_dirs) > 1
    target = options.output or (COMPARISON if several else options.run_dirs[0] / REPORT)
    try:
        write_page(options.run_dirs, target)
    except OSError as error:
        print(f"error: {target} could not be written: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB)")


def report_faults(run_dirs: Sequence[Path], output: Path | None) -> list[str]:
    """Why no report can be made of these."""
    faults = [fault for path in run_dirs if (fault := run_dir_fault(path))]
    if output is not None and not output.absolute().parent.is_dir():
        faults.append(f"--output: the directory of {output} does not exist; make it first")
    return faults


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sft_dist.report",
        description="Write one self-contained HTML page about a run, or about several.",
    )
    parser.add_argument(
        "run_dirs", type=Path, nargs="+", metavar="RUN_DIR", help="a run's --output_dir"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="where to write; unset: report.html in the run directory, for several runs "
        "comparison.html here",
    )  # fmt: skip
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
