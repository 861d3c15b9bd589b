"""What the offline wandb files of a run say together, attempt by attempt."""

import json
from dataclasses import dataclass
from typing import Any

from tests.tracking.test_wandb_view import read_messages


@dataclass(frozen=True)
class Fragment:
    """The file of one attempt."""

    run_id: str
    rows: list[dict[str, Any]]
    is_ended: bool
    """False after a kill: wandb's own process was killed too."""


def fragments(run_dir):
    """Those of a run, oldest first, as `wandb sync` sends them."""
    files = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    return [_read(path) for path in sorted(files, key=lambda path: path.parent.name)]


def training_rows(run_dir):
    """Step -> its row in the union of all attempts: of a step done twice, the later row."""
    rows = (row for fragment in fragments(run_dir) for row in fragment.rows)
    return {row["train/step"]: row for row in rows if "train/loss" in row}


def _read(path):
    from wandb.proto.wandb_internal_pb2 import Record

    run_id, rows, kinds = "", [], set()
    for message in read_messages(path):
        record = Record()
        record.ParseFromString(message)
        kind = record.WhichOneof("record_type")
        kinds.add(kind)
        if kind == "history":
            items = record.history.item
            rows.append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
        elif kind == "run":
            run_id = record.run.run_id
    return Fragment(run_id, rows, is_ended="exit" in kinds)
