"""What became of a run, from its files alone: state for `status`, one page for `report`.

Reads the run directory by its layout and not through the rooms that write it: an old run, a damaged
one or one of another version must still be shown. No torch.

Reading order: `run_files.py` (tolerant readers), `state.py` (what goes on now), `training.py`,
`evaluations.py`, `graded.py`, `comparison.py`, `timeline.py` (the parts), `run.py` (all of a run),
`page.py` (the file), `writer.py` (what training calls).
"""
