"""What can be wrong with an audit log.

AuditError
 ├─ LogLockedError       another process writes this directory
 ├─ LogDamagedError      what lies on the disk is not what was signed
 ├─ ForkError            the published checkpoints are not those of this log
 ├─ FencedError          another writer has published since: this one must stop
 ├─ EventLogError        EVENTS lacks or has replaced what it once held
 └─ VerificationError    verifying found the first bad entry, and what is wrong with it

TransientError (contracts)
 └─ DiskRefusedError     no room, or an I/O error: the same batch is appended again
"""

from __future__ import annotations

from penstock_shared.contracts.errors import PenstockError, TransientError


class AuditError(PenstockError):
    """Base of all of them."""

    default_code = "audit_error"


class LogLockedError(AuditError):
    """Another process holds the state directory."""

    default_code = "audit_log_locked"


class LogDamagedError(AuditError):
    """The stored log does not match its own signed checkpoint; nothing is appended to it."""

    default_code = "audit_log_damaged"


class ForkError(AuditError):
    """A checkpoint that was published for this log has another root than this log has."""

    default_code = "audit_log_forked"


class FencedError(AuditError):
    """Somebody else has published a checkpoint since ours: two writers run, this one stops."""

    default_code = "audit_writer_fenced"


class EventLogError(AuditError):
    """EVENTS has a hole, or went back behind what is logged already (I5)."""

    default_code = "event_log_not_contiguous"


class VerificationError(AuditError):
    """The log does not verify; `index` is the first bad entry, None when no entry is to blame."""

    default_code = "audit_verification_failed"

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class DiskRefusedError(TransientError):
    """The disk took no batch; the log is as it was before."""

    default_code = "audit_disk"
