"""Which weights are these? A hash of the tensors in a Hugging Face model directory.

It depends on names, dtypes, shapes and bytes; not on sharding, file names or metadata. Reads
model.safetensors or pytorch_model.bin, sharded or not, without holding the model in memory.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sft_dist.errors import ModelError

_CHUNK_BYTES = 1 << 24
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")


def weights_fingerprint(model_dir: Path | str) -> str:
    """SHA-256 over the sorted (name, dtype, shape, SHA-256 of the bytes) of all tensors.

    Raises ModelError when the directory holds no weights or they cannot be read.
    """
    entries: dict[str, tuple[str, list[int], str]] = {}
    for path in weight_files(model_dir):
        try:
            read = _safetensors_entries if path.suffix == ".safetensors" else _bin_entries
            entries.update((name, (dtype, shape, sha)) for name, dtype, shape, sha in read(path))
        except (OSError, ValueError, struct.error, RuntimeError) as error:
            raise ModelError(f"cannot read the weights in {path}: {error}") from error
    listing = json.dumps([[name, *entries[name]] for name in sorted(entries)])
    return hashlib.sha256(listing.encode()).hexdigest()


def weight_files(model_dir: Path | str) -> list[Path]:
    """The weight files of a model directory, safetensors preferred, shards from their index.

    Raises ModelError that names what is missing.
    """
    directory = Path(model_dir)
    if not directory.is_dir():
        raise ModelError(f"expected a model directory at {directory}, found none")
    for name in _SINGLE_FILES:
        index = directory / f"{name}.index.json"
        if (directory / name).is_file():
            return [directory / name]
        if index.is_file():
            return _sharded_files(index)
    raise ModelError(
        f"{directory} holds no weights: expected {' or '.join(_SINGLE_FILES)}, whole or in shards"
    )


def _sharded_files(index: Path) -> list[Path]:
    """The shards an index names; all must exist."""
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError) as error:
        raise ModelError(f"{index} is not an index of weight shards: {error}") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(f"{index} names shards that are missing: {', '.join(missing)}")
    return [index.parent / name for name in names]


_Entry = tuple[str, str, list[int], str]


def _safetensors_entries(path: Path) -> Iterator[_Entry]:
    """Hash the byte ranges the header names. Source of the layout: safetensors format, README."""
    with path.open("rb") as file:
        (header_size,) = struct.unpack("<Q", file.read(8))
        if header_size > path.stat().st_size:
            raise ValueError("the file is cut short or not safetensors")
        header: Mapping[str, Any] = json.loads(file.read(header_size))
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            start, end = tensor["data_offsets"]
            file.seek(8 + header_size + start)
            digest = hashlib.sha256()
            for size in _chunk_sizes(end - start):
                chunk = file.read(size)
                if len(chunk) != size:
                    raise ValueError(f"the file ends inside tensor {name}")
                digest.update(chunk)
            yield name, tensor["dtype"], tensor["shape"], digest.hexdigest()


def _chunk_sizes(total: int) -> Iterator[int]:
    while total > 0:
        yield min(total, _CHUNK_BYTES)
        total -= _CHUNK_BYTES


def _bin_entries(path: Path) -> Iterator[_Entry]:
    """Hash the tensors of a torch file, memory-mapped, and named as safetensors names dtypes."""
    import pickle

    import torch

    names = {
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.float64: "F64",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.bool: "BOOL",
        torch.uint8: "U8",
    }
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"not a file of tensors only: {error}") from error
    for name, tensor in state.items():
        data = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        digest = hashlib.sha256(data)
        yield (
            name,
            names.get(tensor.dtype, str(tensor.dtype)),
            list(tensor.shape),
            digest.hexdigest(),
        )
