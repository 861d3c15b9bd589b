"""Python's garbage collector around imports and engines. No torch."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What `collector_paused` leaves out is collected at the interpreter's end all the same: libraries
# bound by nanobind (triton's) would list what is not.
atexit.register(gc.unfreeze)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Around heavy imports: they make a million objects and no garbage.

    To look through them again and again takes a sixth of the time of torch, transformers and vLLM.
    Nor are they looked through afterwards: half a second while a run starts.
    """
    was_enabled, num_modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > num_modules:
            gc.freeze()
        if was_enabled:
            gc.enable()


@contextmanager
def collections_put_off() -> Iterator[None]:
    """Calls of `gc.collect` inside do nothing; the caller sees to one afterwards.

    Around a library that collects at every step of its own end: each time goes through all that was
    ever imported, 0.3 s for vLLM.
    """
    collect = gc.collect
    gc.collect = lambda generation=2: 0
    try:
        yield
    finally:
        gc.collect = collect
