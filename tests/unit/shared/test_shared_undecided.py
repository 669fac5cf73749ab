"""Two writers meet on one subject of a replicated stream: the server cannot say at once who won."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker, SequenceConflictError, StoredMessage
from penstock_shared.runtime.kv import BucketStore
from penstock_shared.runtime.quick_client import QuickClient

SUBJECT = "v1.t.events.request.r"
STORED = {"stream": "EVENTS", "seq": 7}


def refusal(code: int) -> dict[str, Any]:
    """As nats-server 2.15 words it; 10164 was 1,333 of 1,400 conflicts on three servers."""
    return {"error": {"code": 400, "err_code": code, "description": "wrong last sequence"}}


class ScriptedClient:
    """Answers publishes from a list."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)

    def jetstream(self, timeout: float) -> None:
        """Unused here."""

    async def request(self, *_: Any, **__: Any) -> Any:
        """The next answer."""
        return SimpleNamespace(data=json.dumps(self.answers.pop(0)).encode())


async def publish(client: ScriptedClient) -> int:
    envelope = Envelope(
        id="1", source="/penstock/test/1", type="penstock.test.v1", time=datetime.now(UTC)
    )
    broker = Broker(cast("QuickClient", client))
    return await broker.publish(SUBJECT, b"", envelope, expected_last_seq=0)


async def test_an_undecided_write_is_tried_again_until_it_stands() -> None:
    """The other write may not come through: then this one must not be lost (I2)."""
    client = ScriptedClient(refusal(10164), refusal(10164), STORED)
    assert await publish(client) == 7
    assert not client.answers


async def test_an_undecided_write_that_lost_is_a_conflict() -> None:
    """Not "unavailable": whoever lost reads the winner instead of failing the client (I2)."""
    client = ScriptedClient(refusal(10164), refusal(10071))
    with pytest.raises(SequenceConflictError):
        await publish(client)


class LaggingBroker:
    """Another has won; the replica that answers reads knows only at the third look."""

    def __init__(self) -> None:
        self.looks = 0

    async def publish(self, *_: Any, **__: Any) -> int:
        """Lost."""
        raise SequenceConflictError("wrong last sequence")

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """Nothing, nothing, the winner."""
        self.looks += 1
        if self.looks < 3:
            return None
        return StoredMessage(subject=f"{stream}.{subject}", sequence=1, headers={}, data=b"winner")


async def test_a_key_that_lost_is_never_used() -> None:
    """On three servers 1 of 100 races ended with a key that is stored nowhere (I10)."""
    store = BucketStore(cast("Broker", LaggingBroker()), Bucket.DATA_KEYS)
    assert await store.create("t.subject", b"loser") == b"winner"
