"""Errors that an operator reads.

OperatorError              a sentence, and the next step
└── StartFailedError       a process never became ready
"""

import errno
from pathlib import Path


class OperatorError(Exception):
    """Something the operator can put right: what is wrong, and what to do about it.

    The command prints both as sentences and exits with status 1; no stack trace is shown.
    """

    def __init__(self, message: str, hint: str) -> None:
        """Keep `message` (what is wrong) and `hint` (what to do), each a full sentence."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class StartFailedError(OperatorError):
    """A supervised process did not become ready, so the stack is not usable."""


def explain_os_error(error: OSError, data_dir: Path) -> OperatorError:
    """Put a refusal of the operating system into words; those that operators meet have a cure."""
    place = error.filename or data_dir
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return disk_is_full(Path(place))
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return OperatorError(
            f"This user may not write {place}.",
            "Choose a directory of your own with --data-dir, or change its owner.",
        )
    if error.errno == errno.ENOTDIR:
        return OperatorError(
            f"{place} lies below something that is not a directory.",
            "Choose another place with --data-dir.",
        )
    return OperatorError(
        f"The system refused to use {place}: {error.strerror or error}.",
        "See that the data directory exists, or choose another with --data-dir.",
    )


def disk_is_full(place: Path) -> OperatorError:
    """Say that there is no room left."""
    return OperatorError(
        f"The disk that holds {place} is full.",
        "Free some space there, or choose another place with --data-dir.",
    )
