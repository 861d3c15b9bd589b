"""Sweeps: `python -m launch.sweep SWEEP.yaml`, from the repository root. See docs/sweeps.md.

    python -m launch.sweep sweep.yaml              # submits an array of the cells that need a run
    python -m launch.sweep sweep.yaml --local      # runs them here, one after another
    python -m launch.sweep sweep.yaml --dry_run    # prints cells and command lines, starts nothing

Each call looks at the status.json of every cell. Finished cells are left alone, failed and stopped
ones are run again (from their last checkpoint), those in Slurm's queue are left there; sweep.csv
and sweep.svg in the sweep's directory are written anew. Exit codes: 0 submitted, or all is done;
1 cells failed; 2 the sweep cannot be run.
"""

import argparse
import fcntl
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from launch.sweeping.calls import Call, next_call, remember_points
from launch.sweeping.description import Sweep, read_sweep
from launch.sweeping.local_runs import command_of, run_cells
from launch.sweeping.picture import as_svg
from launch.sweeping.results import as_csv, result_row, sorted_rows
from launch.sweeping.slurm_array import next_file, queued_cells, sbatch_line, submit
from sft_dist.durable import write_atomically
from sft_dist.engines.ds_config import ds_config_faults
from sft_dist.errors import ConfigError
from sft_dist.validation import config_faults

CHECKS = (config_faults, ds_config_faults)
DONE = ("finished", "dropped")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    options = _parse(argv)
    try:
        sweep = read_sweep(options.sweep)
        if options.dry_run:
            _print_plan(sweep, _look(sweep, slurm=False), local=options.local)
            return 0
        with ExitStack() as held:
            _hold(sweep, held)
            if options.table:
                return _report(sweep, _look(sweep, slurm=not options.local))
            return _run_here(sweep) if options.local else _submit(sweep)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _look(sweep: Sweep, *, slurm: bool) -> Call:
    return next_call(sweep, CHECKS, queued_cells(sweep) if slurm else set())


def _hold(sweep: Sweep, held: ExitStack) -> None:
    """One call at a time: two would start the same cells."""
    sweep.directory.mkdir(parents=True, exist_ok=True)
    file = held.enter_context((sweep.directory / ".lock").open("a"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fault = f"{sweep.directory} is in use by another call of launch.sweep; wait for it"
        raise ConfigError([fault]) from None


def _submit(sweep: Sweep) -> int:
    call = _look(sweep, slurm=True)
    remember_points(sweep, call.cells)
    if call.todo:
        line = shlex.join(sbatch_line(sweep, next_file(sweep), len(call.todo)))
        job = submit(sweep, call.todo, call.stop)
        print(f"sweep: {line}\nsweep: {len(call.todo)} cells as array job {job}")
        for cell in call.todo:
            print(f"sweep:   {call.states[cell.name].state:9} {cell.name}")
    return _report(sweep, call, submitted=bool(call.todo))


def _run_here(sweep: Sweep) -> int:
    tried: set[tuple[str, str]] = set()
    while True:
        call = _look(sweep, slurm=(sweep.directory / "submissions").exists())
        remember_points(sweep, call.cells)
        # Once a stage: what failed now would fail again.
        todo = [cell for cell in call.todo if (cell.name, str(call.stop)) not in tried]
        if not todo:
            return _report(sweep, call)
        if call.note:
            print(f"sweep: {call.note}")
        tried |= {(cell.name, str(call.stop)) for cell in todo}
        if not run_cells(sweep, todo, call.stop):
            _report(sweep, _look(sweep, slurm=False))
            return 130


def _report(sweep: Sweep, call: Call, *, submitted: bool = False) -> int:
    """Write the table and the picture, print the counts."""
    rows = sorted_rows([result_row(cell, call.states[cell.name]) for cell in call.cells])
    write_atomically(sweep.directory / "sweep.csv", as_csv(rows))
    write_atomically(sweep.directory / "sweep.svg", as_svg(sweep.name, rows))
    counts = Counter(state.state for state in call.states.values())
    print(f"sweep: {', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}")
    for row in rows:
        if row["state"] in ("failed", "killed"):
            print(f"sweep:   {row['state']} {row['cell']}: {row['reason']}")
    if call.note:
        print(f"sweep: {call.note}")
    print(f"sweep: {sweep.directory / 'sweep.csv'}")
    open_cells = any(s.state not in DONE and not s.diverged for s in call.states.values())
    return 0 if submitted or not open_cells or counts["active"] else 1


def _print_plan(sweep: Sweep, call: Call, *, local: bool) -> None:
    for cell in call.cells:
        note = "run" if cell in call.todo else "leave"
        print(f"{note:5} {call.states[cell.name].state:9} {cell.name}")
        print(f"      {shlex.join(cell.arguments(sweep.name))}")
    if call.note:
        print(call.note)
    if local:
        for cell in call.todo:
            print(shlex.join(command_of(sweep, cell)))
    elif call.todo:
        print(shlex.join(sbatch_line(sweep, next_file(sweep), len(call.todo))))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m launch.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweep", type=Path, help="the sweep file, see docs/sweeps.md")
    parser.add_argument("--local", action="store_true", help="run here, one after another")
    parser.add_argument("--dry_run", action="store_true", help="print, start and write nothing")
    parser.add_argument("--table", action="store_true", help="only write table and picture anew")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
