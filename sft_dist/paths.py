"""What stands at and above a path that may not exist."""

import difflib
from pathlib import Path


def existing_parent(path: Path) -> Path:
    """The path itself or the nearest directory above it that exists."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def near_path(path: Path) -> str:
    """The end of a message on a missing `path`: what stands there under nearly its name, if any."""
    try:
        parent = existing_parent(path)
        missing = path.absolute().relative_to(parent).parts
        beside = {entry.stem: entry.name for entry in parent.iterdir()}
    except OSError:
        return ""
    # Without their endings: two files are not alike for being .jsonl both.
    near = difflib.get_close_matches(Path(missing[0]).stem, beside, n=1) if missing else []
    return f"; did you mean {parent / beside[near[0]]}?" if near else ""
