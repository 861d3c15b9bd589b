"""Every error that a user can cause or must act on, under one base class.

The message of each says what was expected, what was found and what to change.
"""

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """`1 rank`, `2 ranks`: for messages."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


class SftDistError(Exception):
    """Base class: the commands print its message without a traceback."""


class ConfigError(SftDistError):
    """Settings that cannot be run. Carries all faults found, not only the first."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        lines = [f"  {i}. {fault}" for i, fault in enumerate(self.faults, 1)]
        super().__init__(
            "\n".join([f"{counted(len(self.faults), 'fault')} in the configuration:", *lines])
        )


class DataError(SftDistError):
    """Training or evaluation data is missing or unusable."""


class ModelError(SftDistError):
    """The model or its tokenizer cannot be loaded or does not fit the job."""


class CheckpointError(SftDistError):
    """A checkpoint cannot be written, or none that verifies can be read."""


class EvaluationError(SftDistError):
    """An evaluation cannot be carried out."""


class NonFiniteError(SftDistError):
    """The loss or the gradient norm is not finite; the update was not applied."""


class RanksError(SftDistError):
    """Another rank has left, or does not come to where the others wait."""


class OutOfMemoryError(SftDistError):
    """The device, or the host, has no memory left for what was asked of it."""
