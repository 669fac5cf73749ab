"""What audit says of itself in the event log."""

from __future__ import annotations

from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict

CHECKPOINTED_TOPIC: Final = "audit"
CHECKPOINTED_FACT: Final = "checkpointed"


class AuditCheckpointed(BaseModel):
    """A signed tree head over the first `tree_size` entries; never triggers a batch by itself."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str] = "penstock.audit.checkpointed.v1"

    tree_size: int
    root_hash: str
    """Base64, as in the checkpoint's third line (C2SP tlog-checkpoint)."""
    events_seq: int
    """The EVENTS sequence of the last entry."""
    checkpoint: str
    """The whole signed note."""


def checkpointed_id(fact: AuditCheckpointed) -> str:
    """The deterministic id of a checkpoint's fact."""
    return f"audit/checkpointed/{fact.tree_size}/{fact.root_hash}"


class CheckpointQuery(BaseModel):
    """Operator's question to audit on `v1.platform.audit.checkpoint`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SignedCheckpoint(BaseModel):
    """Audit's answer on `v1.platform.audit.checkpoint`."""

    model_config = ConfigDict(frozen=True)

    tree_size: int
    root_hash: str
    checkpoint: str
    vkey: str
    """The verifier key line (c2sp.org/signed-note): compare it with the one you were given."""
