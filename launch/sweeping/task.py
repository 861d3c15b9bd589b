"""Prints what one task of a sweep's array runs: `python launch/sweeping/task.py FILE INDEX [stop]`.

The words are separated by NUL, for bash's `mapfile -d ''`. Needs the standard library only, and no
package: it runs by its path on a compute node.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """The flags of the task's cell; with `stop` the arguments of `rung_watch.py`, or nothing."""
    submission = json.loads(Path(sys.argv[1]).read_text())
    cell = submission["cells"][int(sys.argv[2])]
    words = cell["arguments"]
    if sys.argv[3:] == ["stop"]:
        stop = submission["stop"]
        words = [cell["run_dir"], str(stop["rung"]), stop["metric"]] if stop else []
    sys.stdout.write("".join(word + "\0" for word in words))


if __name__ == "__main__":
    main()
