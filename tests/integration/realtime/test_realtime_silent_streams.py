"""A tenant that publishes with a reply subject of its choice makes no server write there (I8)."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.support.realtime import Edge

from penstock_shared.contracts import subjects
from penstock_shared.contracts.streams import STREAMS, Bucket
from penstock_shared.runtime.kv import bucket_subjects

REQUEST_ID = "0190e0f0-0000-7000-8000-000000000000"


async def stored(edge: Edge) -> dict[str, int]:
    """How far each stream has got."""
    infos = await edge.broker.jetstream.streams_info()
    return {str(info.config.name): info.state.last_seq for info in infos}


@pytest.mark.parametrize(
    "reply",
    [
        subjects.request_event("rival", REQUEST_ID),
        subjects.control("rival", REQUEST_ID),
        subjects.queue("rival"),
        bucket_subjects(Bucket.TENANTS).replace(">", "rival"),
        bucket_subjects(Bucket.DATA_KEYS).replace(">", "x"),
        "$JS.API.STREAM.PURGE.EVENTS",
    ],
)
@pytest.mark.parametrize("door", [subjects.queue, lambda t: subjects.control(t, REQUEST_ID)])
async def test_no_acknowledgement_goes_where_a_publisher_says(
    edge: Edge, reply: str, door: object
) -> None:
    """What is published is stored, and nothing else is: no foreign fact, record or command."""
    tenant = edge.account.tenant.tenant
    subject = door(tenant)  # type: ignore[operator] # one of the two above
    stream = "INGRESS" if subject == subjects.queue(tenant) else "CONTROL"
    before = await stored(edge)
    await edge.broker.client.publish(subject, b"{}", reply=reply)
    async with asyncio.timeout(5):
        while (await stored(edge))[stream] == before[stream]:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    after = await stored(edge)
    assert {name for name in after if after[name] != before[name]} == {stream}


def test_every_stream_that_tenants_write_to_is_silent() -> None:
    """Whoever grants tenants another subject must look here."""
    granted = subjects.tenant_permissions("acme").publish
    caught = [
        spec
        for spec in STREAMS
        for pattern in spec.subjects
        if any(_within(subject.replace("*", REQUEST_ID), pattern) for subject in granted)
    ]
    assert {spec.name for spec in caught} == {"INGRESS", "CONTROL"}
    assert all(spec.silent for spec in caught), json.dumps([spec.name for spec in caught])


def _within(subject: str, pattern: str) -> bool:
    have, want = subject.split("."), pattern.split(".")
    if want[-1] == ">":
        return len(have) >= len(want) and _within(
            ".".join(have[: len(want) - 1]), ".".join(want[:-1])
        )
    return len(have) == len(want) and all(w in {"*", h} for h, w in zip(have, want, strict=True))
