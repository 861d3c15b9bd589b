"""File operations of this process, counted; before any one of them the process can be killed.

Python's functions are replaced, so what is written in C (safetensors, torch.save by name) counts
as one operation. A write has two points: before it, and when half of it is done. Of the many small
writes to one file the first, second, fourth, eighth, ... count.
"""

import builtins
import ctypes
import io
import os
import signal
from pathlib import Path

import torch
from safetensors import torch as safetensors_torch

WRITING = set("wax+")
PLAIN = ("fsync", "rename", "replace", "link", "mkdir", "unlink", "remove", "rmdir")


class Operations:
    """Replaces the functions that change files; `install` once in a process."""

    def __init__(self, root, kill_at=None):
        """Operations on anything outside `root` do not count; None kills nothing."""
        self.root, self.kill_at = str(root), kill_at
        self.seen = []

    def install(self):
        for name in PLAIN:
            setattr(os, name, self._plain(name, getattr(os, name)))
        io.open = builtins.open = self._open(io.open)
        safetensors_torch.save_file = self._save_file(safetensors_torch.save_file)
        torch.save = self._torch_save(torch.save)
        ctypes.CDLL = self._library(ctypes.CDLL)

    def point(self, what, path, half=None):
        """Kill here, or go on; `half` is done before when the process dies in the middle of it."""
        path = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else str(path)
        if not path.startswith(self.root):
            return
        self.reached(f"{what} {os.path.relpath(path, self.root)}", half)

    def reached(self, name, half=None):
        self.seen.append(name)
        if len(self.seen) - 1 == self.kill_at:
            if half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)

    def counts(self, path, number):
        """Whether the `number`-th write to a file is an operation to kill at."""
        return number.bit_count() == 1

    def _plain(self, name, function):
        def counted(*args, **kwargs):
            path = args[0]
            if kwargs.get("dir_fd") is not None:  # so rmtree removes
                path = os.path.join(os.readlink(f"/proc/self/fd/{kwargs['dir_fd']}"), path)
            self.point(name, path)
            return function(*args, **kwargs)

        return counted

    def _open(self, function):
        def counted(file, mode="r", *args, **kwargs):
            if not WRITING & set(mode) or isinstance(file, int):
                return function(file, mode, *args, **kwargs)
            self.point("open", file)
            return Written(function(file, mode, *args, **kwargs), self, file)

        return counted

    def _save_file(self, function):
        def counted(tensors, filename, metadata=None):
            self.in_c(filename, lambda: function(tensors, filename, metadata))

        return counted

    def _torch_save(self, function):
        def counted(content, file, *args, **kwargs):
            if isinstance(file, str | os.PathLike):
                self.in_c(file, lambda: function(content, file, *args, **kwargs))
            else:  # its writes count
                function(content, file, *args, **kwargs)

        return counted

    def in_c(self, path, write):
        """A file that is written where no function can be replaced."""

        def half():
            write()
            os.truncate(path, Path(path).stat().st_size // 2)

        self.point("write", path)
        self.point("half write", path, half)
        return write()

    def _library(self, load):
        def counted(name, **kwargs):
            library = load(name, **kwargs)
            if name is None:
                renameat2 = library.renameat2

                def exchange(here, first, there, second, flag):
                    self.point("exchange", os.fsdecode(first))
                    return renameat2(here, first, there, second, flag)

                library.renameat2 = exchange
            return library

        return counted


class Written:
    """A file whose writes count; unbuffered, so that what was written before a kill is there."""

    def __init__(self, file, operations, path):
        self.file, self.operations, self.path = file, operations, path
        self.count = 0

    def write(self, data):
        def half():
            self.file.write(data[: len(data) // 2])
            self.file.flush()

        self.count += 1
        if self.operations.counts(self.path, self.count):
            self.operations.point("write", self.path)
            self.operations.point("half write", self.path, half)
        count = self.file.write(data)
        self.file.flush()
        return count

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *args):
        return self.file.__exit__(*args)

    def __iter__(self):
        return iter(self.file)
