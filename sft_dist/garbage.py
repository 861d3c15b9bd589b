"""Python's garbage collector during a start. No torch.

Imports make a million objects and no garbage. Collecting among them takes a sixth of their time,
and looking through them again is what a collection costs later.
"""

import atexit
import gc


def pause_collector() -> None:
    """Call before the heavy imports."""
    gc.disable()


def resume_collector() -> None:
    """Collect again, but never what is there by now."""
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # what is frozen then, triton's bindings call a leak on the screen
