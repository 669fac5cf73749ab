"""Verifying a log offline: from its directory and the public key alone.

Every leaf is made again from the stored event (subject, headers, data), compared with the stored
entry and hash, and hashed up to the root that the checkpoint signs. The sequence numbers must run
from 1 without a hole (I5). What cannot be seen offline is a whole log rolled back to an older
checkpoint; against that, hand in roots that were witnessed elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from penstock_audit.adapters.posix_files import PosixFiles
from penstock_audit.adapters.tile_log import CHECKPOINT
from penstock_audit.domain.checkpoint import Checkpoint
from penstock_audit.domain.notes import NoteError, Verifier
from penstock_audit.errors import VerificationError
from penstock_audit.verification.log_pass import (
    LogPass,
    Progress,
    VerifiedLog,
    open_note,
    read_signed,
)

__all__ = [
    "Progress",
    "VerifiedLog",
    "open_checkpoint",
    "read_checkpoint",
    "verify_log",
    "witnessed_roots",
]

_LOG_DIRECTORY: Final = "log"


def verify_log(
    path: Path,
    vkey: str,
    *,
    witnessed: Mapping[int, bytes] | None = None,
    progress: Progress | None = None,
) -> VerifiedLog:
    """Verify the log in `path` (or in its subdirectory `log`) against a verifier key.

    `witnessed` maps tree sizes to the roots that were seen for them elsewhere. A log that is
    being written meanwhile verifies as of its checkpoint.

    Raises:
        VerificationError: the first thing that is wrong.
    """
    return LogPass(_files(path), _verifier(vkey), dict(witnessed or {}), progress).run()


def read_checkpoint(path: Path, vkey: str) -> Checkpoint:
    """The log's current checkpoint, its signature verified, its entries not.

    Raises:
        VerificationError: there is none, or it is not valid.
    """
    return read_signed(_files(path), _verifier(vkey))


def open_checkpoint(note: str, vkey: str) -> Checkpoint:
    """A checkpoint that came from elsewhere.

    Raises:
        VerificationError: it is not one of this log.
    """
    return open_note(note.encode(), _verifier(vkey))


def witnessed_roots(notes: Iterable[str], vkey: str) -> dict[int, bytes]:
    """Roots by tree size, of checkpoints that somebody has kept, for `verify_log`.

    Raises:
        VerificationError: one is not of this log, or two contradict each other: then the log's
            own key has signed two histories.
    """
    roots: dict[int, bytes] = {}
    for note in notes:
        checkpoint = open_checkpoint(note, vkey)
        if roots.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            msg = f"Two signed checkpoints over {checkpoint.size} entries have different roots."
            raise VerificationError(msg)
    return roots


def _files(path: Path) -> PosixFiles:
    inner = path / _LOG_DIRECTORY
    return PosixFiles(inner if (inner / CHECKPOINT).exists() else path)


def _verifier(vkey: str) -> Verifier:
    try:
        return Verifier.from_text(vkey)
    except NoteError as error:
        msg = f"The verifier key cannot be read: {error}."
        raise VerificationError(msg) from error
