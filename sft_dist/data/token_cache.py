"""Tokenised examples on disk, found by what they were made from.

One file a key below `--cache_dir`. The key covers the texts, the tokenizer and the form, so a file
never goes stale and nothing invalidates it; delete the directory at any time. The cache never stops
a run: what cannot be read is made again, what cannot be written is told in a warning.

The ranks of a node come here at the same time, before they know one another. The first to take the
lock of a key tokenises, the others wait for its file. Where the file system has no locks each rank
tokenises for itself; files are published by rename, so nobody reads half a one.
"""

import fcntl
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raise it when what `tokenization.py` makes of the same texts changes."""
PATIENCE_SECONDS = 600.0
"""Wait this long for another process; its end, however it ends, frees the lock sooner."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class TokenTable:
    """`E` examples one behind another."""

    input_ids: np.ndarray
    """(sum of their tokens,) int32."""
    ends: np.ndarray
    """(E,) int64: where each example ends in `input_ids`."""
    prompt_lengths: np.ndarray
    """(E,) int64: tokens of each prompt."""


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/sft_dist`, else `~/.cache/sft_dist`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and is passed over.
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~/.cache"))
    return root / "sft_dist"


def cache_key(texts: Iterable[str], tokenizer: Any, *, prompt: str, stop_token_id: int) -> str:
    """32 hexadecimal digits that change with anything that changes the tokens.

    Args:
        texts: prompts and targets after the template, in order.
        tokenizer: a tokenizer of the tokenizers library, as it was loaded.
        prompt: name of the prompt format.
        stop_token_id: the id that ends each example.
    """
    import tokenizers

    digest = hashlib.sha256()
    split_special = bool(getattr(tokenizer, "split_special_tokens", False))
    form = [FORMAT, tokenizers.__version__, prompt, stop_token_id, split_special]
    for text in (repr(form), tokenizer.backend_tokenizer.to_str(), *texts):
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()[:32]


def cached(directory: Path, key: str, build: Callable[[], TokenTable]) -> TokenTable:
    """The table of `key`: read if it is there, else built and left for the next to come."""
    path = directory / "tokens" / f"{key}.safetensors"
    with _lock(path) as try_lock:
        deadline = time.monotonic() + PATIENCE_SECONDS
        mine = False
        # The last look comes after the lock: its holder may have published in between.
        while (table := _read(path, key)) is None and not mine:
            mine = try_lock() or time.monotonic() > deadline
            if not mine:
                time.sleep(POLL_SECONDS)
        if table is not None:
            logger.info("tokenised before: %s", path)
            return table
        if path.exists():
            logger.warning("%s cannot be read or is damaged; the examples are tokenised again", path)
        table = build()
        _publish(path, key, table)
        return table


def _read(path: Path, key: str) -> TokenTable | None:
    """None when the file is not there, or is not what `_publish` wrote under this key."""
    try:
        tensors = safetensors.load(path.read_bytes())
        checksum = tensors.pop("checksum").tobytes()
        table = TokenTable(**tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return table if checksum == _checksum(key, table) else None


def _publish(path: Path, key: str, table: TokenTable) -> None:
    checksum = np.frombuffer(_checksum(key, table), dtype=np.uint8)
    partial = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(safetensors.save({**vars(table), "checksum": checksum}))
        partial.replace(path)
    except OSError as error:
        logger.warning("tokens are not cached: %s; name another place with --cache_dir", error)
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _checksum(key: str, table: TokenTable) -> bytes:
    """Of content and key, so that a flipped bit and a file under another name are noticed."""
    digest = hashlib.sha256(key.encode())
    for array in vars(table).values():
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.digest()


@contextmanager
def _lock(path: Path) -> Iterator[Callable[[], bool]]:
    """A function that says whether this process may build, without waiting; free at the end.

    Yes also where there is no lock to be had: the directory is read-only, or on a file system
    (Lustre without `flock`, some NFS) that has none.
    """
    file = None
    said = False

    def try_lock() -> bool:
        nonlocal file, said
        try:
            if file is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = path.with_suffix(".lock").open("a")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not said:
                logger.info("another process tokenises the same examples; waiting for it")
            said = True
            return False
        except OSError:
            return True
        return True

    try:
        yield try_lock
    finally:
        if file is not None:
            file.close()
