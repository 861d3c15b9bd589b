"""Python's garbage collector during imports. No torch."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Around heavy imports: they make a million objects and no garbage.

    To look through them again and again takes a sixth of the time of torch, transformers and vLLM.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
