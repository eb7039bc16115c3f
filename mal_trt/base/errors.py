"""The two ways a command can fail on purpose; the CLI turns both into one line."""

from __future__ import annotations

from pathlib import Path


class MalTrtError(Exception):
    """A failure whose message is written for the user: what was wrong, where, and what to do."""

    exit_code = 1


class InputError(MalTrtError):
    """The input (a file, a record, an option) cannot be used as it is: exit code 2."""

    exit_code = 2


class RunError(MalTrtError):
    """The input was fine but the run failed (disk full, backend failure): exit code 1."""


class NanLogits(RunError):
    """A model gave NaN for at least one crop of a batch."""


class NothingDone(RunError):
    """A run went through and has nothing to show.

    `listed`: the file that gives the reason for each record, or None.
    """

    def __init__(self, message: str, listed: Path | None = None) -> None:
        super().__init__(message)
        self.listed = listed


def one_line(error: BaseException, most: int = 200) -> str:
    """What another library says of a failure, on one line of `most` characters at most; its type if it says nothing."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]
