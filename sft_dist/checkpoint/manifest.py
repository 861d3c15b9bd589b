"""The manifest: every file of a checkpoint with size and SHA-256, and a checksum of the list.

It is written last, and compared byte for byte with what its own content would be written as: no
damage to it, and no entry taken out of it, passes for a smaller checkpoint.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sft_dist.checkpoint.layout import ENGINE, MANIFEST, NAME, TRAINING_STATE, checkpoint_step

FORMAT = 2
WEIGHTS = (".safetensors", ".bin")
REQUIRED = ("config.json", TRAINING_STATE, f"{ENGINE}/.metadata")
READERS = 4
"""Threads that verify: hashing leaves Python's lock, and one core is slower than most disks."""

Listing = Mapping[str, Mapping[str, Any]]
"""Path inside the checkpoint -> {"size": bytes, "sha256": hexadecimal}."""


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_entry(path: Path) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"size": path.stat().st_size, "sha256": file_sha256(path)}


def files_in(directory: Path) -> list[Path]:
    """All files that belong to a checkpoint, but the manifest, sorted.

    NFS keeps a removed file that somebody still reads under a name of its own, `.nfs...`.
    """
    found = (p for p in directory.rglob("*") if p.is_file() and not p.name.startswith(".nfs"))
    return sorted(p for p in found if p != directory / MANIFEST)


def manifest_text(step: int, files: Listing) -> str:
    """The content of the manifest: the same list always gives the same bytes."""
    content = {"format": FORMAT, "step": step, "files": files}
    checksum = hashlib.sha256(_as_text(content).encode()).hexdigest()
    return _as_text({**content, "sha256": checksum})


def read_listing(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """The files that the manifest lists.

    Raises:
        ValueError: when it is not what `manifest_text` makes; OSError when it cannot be read.
    """
    text = (checkpoint / MANIFEST).read_text(encoding="utf-8")
    content = json.loads(text)
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, expected {FORMAT}")
        whole = text == manifest_text(content["step"], content["files"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"it has another form: {error!r}") from error
    if not whole:
        raise ValueError("its checksum is not that of its content")
    if NAME.fullmatch(checkpoint.name) and content["step"] != checkpoint_step(checkpoint):
        raise ValueError(f"it is that of step {content['step']}")
    return content["files"]


def damage(checkpoint: Path) -> list[str]:
    """What is wrong with a checkpoint; empty when it holds what it must, unchanged, and no more.

    Every byte is read.
    """
    try:
        listed = read_listing(checkpoint)
    except (OSError, ValueError, RecursionError) as error:
        return [f"{MANIFEST} is missing or damaged ({error})"]
    faults = [f"{name} is not in {MANIFEST}" for name in _absent(listed)]
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda item: _file_damage(checkpoint, *item), listed.items())
        faults += [fault for fault in found if fault]
    present = {str(path.relative_to(checkpoint)) for path in files_in(checkpoint)}
    extra = sorted(present - set(listed))
    return faults + [f"{name} is there and not in {MANIFEST}; move it away" for name in extra]


def _absent(listed: Listing) -> Iterator[str]:
    """What a checkpoint must have and the manifest does not list."""
    yield from (name for name in REQUIRED if name not in listed)
    if not any("/" not in name and name.endswith(WEIGHTS) for name in listed):
        yield "a file of weights"
    if not any(name.startswith(f"{ENGINE}/") and name.endswith(".distcp") for name in listed):
        yield "a file of optimizer state"


def _file_damage(checkpoint: Path, name: str, entry: Mapping[str, Any]) -> str | None:
    path = checkpoint / name
    try:
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != entry["size"]:
            return f"{name} has {size} bytes, expected {entry['size']}"
        if file_sha256(path) != entry["sha256"]:
            return f"{name} has another checksum than when it was written"
    except OSError as error:
        return f"{name} cannot be read ({error})"
    return None


def _as_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"
