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
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

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


def resolved_cache_dir(named: str | None) -> Path | None:
    """`--cache_dir`, or the default."""
    return Path(named).expanduser() if named else default_cache_dir()


def default_cache_dir() -> Path | None:
    """`$XDG_CACHE_HOME/sft_dist`, else `~/.cache/sft_dist`; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification calls a relative path invalid
        base = os.path.expanduser("~/.cache")
    return Path(base) / "sft_dist" if os.path.isabs(base) else None


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
    with closing(_Lock(path)) as lock:
        deadline = time.monotonic() + PATIENCE_SECONDS
        mine = False
        # The last look comes after the lock: its holder may have published in between.
        while (table := _read(path, key)) is None and not mine:
            mine = lock.acquired() or time.monotonic() > deadline
            if not mine:
                time.sleep(POLL_SECONDS)
        if table is not None:
            logger.info("tokenised examples read from %s", path)
            return table
        if path.exists():
            logger.warning(
                "%s cannot be read or is damaged; the examples are tokenised again", path
            )
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


class _Lock:
    """The right to build what belongs at `path`, among the processes of one file system."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_suffix(".lock")
        self._file: IO[str] | None = None
        self._waiting = False

    def acquired(self) -> bool:
        """Try once, without waiting.

        Also true where there is no lock to be had: the directory is read-only, or on a file system
        without locks (Lustre may be mounted so).
        """
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("a")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not self._waiting:
                logger.info("another process tokenises the same examples; waiting for it")
            self._waiting = True
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Let the next one in. The empty file stays: to remove it would be a race."""
        if self._file is not None:
            self._file.close()
