"""Comparing a log with the live EVENTS: does it hold everything, and what was published of it?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nats.errors
import nats.js.errors

from penstock_audit.errors import VerificationError
from penstock_audit.verification import read_checkpoint
from penstock_shared.contracts import subjects
from penstock_shared.contracts.audit import (
    CHECKPOINTED_FACT,
    CHECKPOINTED_TOPIC,
    AuditCheckpointed,
)
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.ids import PLATFORM
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker

_POLL_S: Final = 0.1
_CHECKPOINTED: Final = subjects.topic_event(PLATFORM, CHECKPOINTED_TOPIC, CHECKPOINTED_FACT)


@dataclass(frozen=True, slots=True)
class EventsPosition:
    """What EVENTS holds at one moment."""

    last_seq: int
    """Its last message."""
    due_seq: int
    """The last one that a log must hold: checkpoint facts at the end wait for others."""
    published: AuditCheckpointed | None
    """The last checkpoint that was published."""


async def events_position(broker: Broker) -> EventsPosition:
    """Look at EVENTS.

    Raises:
        VerificationError: EVENTS itself has holes.
        UnavailableError: it does not answer.
    """
    try:
        state = (await broker.jetstream.stream_info(EVENTS)).state
        due_seq = state.last_seq
        while due_seq and await _is_checkpoint_fact(broker, due_seq):
            due_seq -= 1
    except (nats.errors.Error, TimeoutError, OSError) as error:
        msg = "EVENTS does not answer."
        raise UnavailableError(msg, code="event_log_unavailable") from error
    held = state.last_seq - state.first_seq + 1
    if state.messages and state.messages != held:
        msg = f"EVENTS lacks {held - state.messages} of the messages up to {state.last_seq}."
        raise VerificationError(msg)
    last = await broker.last_message(EVENTS, _CHECKPOINTED)
    published = None if last is None else AuditCheckpointed.model_validate_json(last.data)
    return EventsPosition(state.last_seq, due_seq, published)


async def wait_until_covered(path: Path, vkey: str, due_seq: int, wait_s: float) -> None:
    """Wait until the log's checkpoint covers EVENTS up to `due_seq`.

    Raises:
        VerificationError: it does not within `wait_s`, or its checkpoint is not valid.
    """
    deadline = asyncio.get_running_loop().time() + wait_s
    while (size := (await asyncio.to_thread(read_checkpoint, path, vkey)).size) < due_seq:
        if asyncio.get_running_loop().time() > deadline:
            msg = (
                f"The log ends with EVENTS {size}, but EVENTS goes on to {due_seq}: audit does not "
                f"run, is stalled, or needs more than {wait_s:g} s."
            )
            raise VerificationError(msg)
        await asyncio.sleep(_POLL_S)


async def _is_checkpoint_fact(broker: Broker, seq: int) -> bool:
    try:
        message = await broker.jetstream.get_msg(EVENTS, seq=seq, direct=True)
    except nats.js.errors.NotFoundError:
        return False
    return message.subject == _CHECKPOINTED
