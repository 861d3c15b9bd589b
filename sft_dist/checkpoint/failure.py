"""Why a checkpoint could not be written: what happened, how much room is left, what to do."""

import errno
import os
import shutil
from pathlib import Path

ADVICE = {
    errno.ENOSPC: "free space there, or lower --keep_last_n_checkpoints",
    errno.EDQUOT: "free space within your quota, or have it raised",
    errno.EROFS: "the file system is mounted read-only: have it mounted for writing",
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.EIO: "the disk or the server behind it reports an error; look at its log",
}
NEARLY_FULL = 1 << 20
"""Bytes; torch.save tells a full disk by a position that it did not expect."""
OTHERWISE = "look at the log of this rank in logs/"


def explain(error: BaseException, path: Path) -> str:
    """What went wrong when `path` was written, with the free space there and what to change."""
    free, inodes = _room(path)
    code = _code(error)
    if code is None and (inodes == 0 or (free is not None and free < NEARLY_FULL)):
        code = errno.ENOSPC
    if code in ADVICE:
        return f"{os.strerror(code)}; {_room_in_words(free, inodes)}; {ADVICE[code]}"
    words = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {words}; {_room_in_words(free, inodes)}; {OTHERWISE}"


def _code(error: BaseException) -> int | None:
    """The system's error number; torch and safetensors wrap it, or say it in words alone."""
    wrapped: BaseException | None = error
    while wrapped is not None:
        if isinstance(wrapped, OSError):
            return wrapped.errno
        wrapped = wrapped.__cause__ or wrapped.__context__
    return next((code for code in ADVICE if os.strerror(code) in str(error)), None)


def _room(path: Path) -> tuple[int | None, int | None]:
    """Free bytes and free inodes where `path` is or would be; None where nobody knows."""
    existing = next((p for p in (path, *path.parents) if p.exists()), None)
    if existing is None:
        return None, None
    try:
        found = os.statvfs(existing)
        free = shutil.disk_usage(existing).free
    except OSError:
        return None, None
    return free, found.f_favail if found.f_files else None


def _room_in_words(free: int | None, inodes: int | None) -> str:
    if free is None:
        return "free space unknown"
    words = f"{free / 2**30:.2f} GiB free there"
    return f"{words}, but no file may be added (no free inodes)" if inodes == 0 else words
