"""What an operator can set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from penstock_shared.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """Settings of audit, beside those that all services share."""

    state_dir: Path
    """The log, its key and its lock. Belongs to one process at a time."""
    audit_origin: Annotated[str, Field(pattern=r"^[^\s+]+$")] = "penstock.local/audit"
    """The log's name: the checkpoint's first line and the signing key's name. Once the log has
    a key, the name is the key's."""
    audit_batch_events: Annotated[int, Field(ge=1, le=4096)] = 1_000
    """A checkpoint covers at most this many new events."""
    audit_linger_ms: Annotated[float, Field(ge=0, le=60_000)] = 100.0
    """How long the oldest event may wait for others before it is checkpointed."""
