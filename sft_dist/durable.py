"""Files that outlive a crash, and that others read while they are written: whole or absent.

Rename and link are the only operations that a reader in another process, or after a crash, sees
either not at all or complete; fsync puts content and names on the disk first. Everything that a
run must find again is written through this module.
"""

import ctypes
import errno
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

TEMPORARY = ".*.tmp"
"""Pattern of the names under which `write_atomically` and `create_once` begin."""

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def write_atomically(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace `path` by a file with content `text`; `durable` also survives a power cut."""
    temporary = _write_aside(path, text, durable=durable)
    os.replace(temporary, path)
    if durable:
        sync_directory(path.parent)


def write_json(path: Path, content: Any, *, durable: bool = True) -> None:
    """`write_atomically` for JSON; a NaN is an error here, not in the reader."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(path, text, durable=durable)


def create_once(path: Path, text: str) -> bool:
    """Create `path` with content `text` unless it exists; True when this call created it."""
    temporary = _write_aside(path, text, durable=True)
    try:
        return publish_once(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish_once(source: Path, target: Path) -> bool:
    """Give the finished file `source` the name `target`, unless that exists; True if this call did.

    A link, because a rename would silently replace what another worker published before. Where
    the file system has no hard links, a check and a rename: the second of two workers that
    publish in the same instant then wins, which a reader cannot tell from the first.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if target.exists():
            return False
        os.rename(source, target)
    sync_directory(target.parent)
    return True


def exchange(first: Path, second: Path) -> bool:
    """Swap the names of two files or directories in one instant; False where that is not to be had.

    A rename cannot replace a directory that is not empty, and between two renames a kill would
    leave neither name. Linux only, and not on every file system (NFS has it not).
    """
    if sys.platform != "linux":
        return False
    swap, here = 2, -100  # RENAME_EXCHANGE of linux/fs.h, AT_FDCWD of fcntl.h
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # an older C library
        return False
    if renameat2(here, os.fsencode(first), here, os.fsencode(second), swap) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`; None where there is none or it is not (yet) whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def sync_file(path: Path) -> None:
    """Put the content of a file on the disk, whoever wrote it."""
    _sync(path)


def sync_directory(directory: Path) -> None:
    """Put the names in `directory` on the disk."""
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_aside(path: Path, text: str, *, durable: bool) -> Path:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:  # a full disk must not be filled further
        temporary.unlink(missing_ok=True)
        raise
    return temporary
