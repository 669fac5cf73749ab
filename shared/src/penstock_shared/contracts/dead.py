"""Poison: what could not be handled, why, and the message itself, still encrypted."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from penstock_shared.contracts.errors import ErrorBody


class DeadLetter(BaseModel):
    """One entry in DEAD."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str] = "penstock.dead.letter.v1"

    stream: str
    stream_seq: int
    subject: str
    headers: dict[str, str]
    deliveries: int
    error: ErrorBody
    content: str
    """The sealed payload, bound to the field name "dead"."""
    died_at: datetime


def dead_id(stream: str, stream_seq: int) -> str:
    """The deterministic id of a dead letter."""
    return f"dead/{stream}/{stream_seq}"
