"""The checkpoints in a run directory, by their manifests; no weight is read."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sft_dist.durable import read_json
from sft_dist.reporting.run_files import MANIFEST, modified, whole

_NAME = re.compile(r"checkpoint-(\d+)")
_ENGINE = "engine"
_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True)
class Checkpoint:
    """One `checkpoint-N`. `sha256` are the manifest's checksums of the weight files.

    `faults` names files that are missing or of another size; contents are not compared, which
    would read every byte.
    """

    name: str
    step: int
    written: float | None
    num_bytes: int
    has_optimizer_state: bool
    sha256: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def read_checkpoints(run_dir: Path) -> list[Checkpoint]:
    """The checkpoints, oldest first."""
    found = [(_NAME.fullmatch(path.name), path) for path in run_dir.glob("checkpoint-*")]
    numbered = sorted((int(match[1]), path) for match, path in found if match)
    return [_read(path, step) for step, path in numbered]


def _read(path: Path, step: int) -> Checkpoint:
    files = _listed(path)
    weights = {name: entry for name, entry in files.items() if name.endswith(_WEIGHTS)}
    return Checkpoint(
        name=path.name,
        step=step,
        written=modified(path / MANIFEST) or modified(path),
        num_bytes=sum(whole(entry.get("size")) or 0 for entry in files.values()),
        has_optimizer_state=(path / _ENGINE).is_dir(),
        sha256={name: str(entry.get("sha256", "")) for name, entry in weights.items()},
        faults=_faults(path, files) if files else [f"{MANIFEST} is missing or unreadable"],
    )


def _listed(path: Path) -> dict[str, dict[str, Any]]:
    """Size and checksum by file name; without the optimizer state where retention took that."""
    listed = (read_json(path / MANIFEST) or {}).get("files")
    files = listed if isinstance(listed, dict) else {}
    has_engine = (path / _ENGINE).is_dir()
    return {
        str(name): entry
        for name, entry in files.items()
        if isinstance(entry, dict) and (has_engine or not str(name).startswith(f"{_ENGINE}/"))
    }


def _faults(path: Path, files: dict[str, Any]) -> list[str]:
    faults = []
    for name, entry in files.items():
        try:
            size = (path / name).stat().st_size
        except OSError:
            faults.append(f"{name} is missing")
            continue
        if size != entry.get("size"):
            faults.append(f"{name} has {size} bytes, expected {entry.get('size')}")
    return faults
