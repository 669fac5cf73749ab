"""A refusal reads the same whichever way the request came: HTTP's bodies, over NATS."""

from __future__ import annotations

import json
from typing import Any

import httpx
import nats
import pytest
from tests.support.stack import Stack

from penstock_shared.runtime.clock import IdSource, SystemClock

pytestmark = pytest.mark.xdist_group("stack")
IDS = IdSource(SystemClock())


async def refused(stack: Stack, body: bytes) -> tuple[tuple[int, Any], tuple[int, Any]]:
    """Status and error over HTTP, and over NATS."""
    headers = {"authorization": f"Bearer {stack.ready['api_key']}"}
    async with httpx.AsyncClient(base_url=stack.ready["http"], headers=headers) as http:
        over_http = await http.post("/v1/responses", content=body)
    client = await nats.connect(
        stack.ready["nats"], token=stack.ready["api_key"], inbox_prefix=b"_INBOX_demo"
    )
    event = {
        "ce-specversion": "1.0",
        "ce-id": IDS.new(),
        "ce-source": "/test",
        "ce-type": "penstock.request.submit.v1",
    }
    reply = await client.request("v1.demo.requests.submit", body, timeout=5, headers=event)
    await client.close()
    over_nats = json.loads(reply.data)["reply"]
    return (over_http.status_code, over_http.json()["error"]), (
        over_nats["http_status"],
        over_nats["error"],
    )


@pytest.mark.parametrize(
    "body",
    [
        b"{nope",
        b"[]",
        b"{}",
        b'{"input":"x","surprise":1}',
        b'{"input":"x","max_output_tokens":-1}',
        b'{"input":"x","max_output_tokens":1.5}',
        b'{"input":"x","temperature":9}',
        b'{"input":"x","temperature":"0.5"}',
        b'{"input":"x","top_p":0}',
        b'{"input":"x","safety_identifier":""}',
    ],
)
async def test_the_very_same_error(stack: Stack, body: bytes) -> None:
    """Status, type, code, field and words."""
    over_http, over_nats = await refused(stack, body)
    assert over_nats == over_http


@pytest.mark.parametrize(
    "body",
    [
        b'{"input":5}',
        b'{"input":""}',
        b'{"input":"x","model":"gpt-9"}',
        json.dumps({"input": "x" * 300_000}).encode(),
    ],
)
async def test_the_same_error_in_other_words(stack: Stack, body: bytes) -> None:
    """Status, type, code and field; what to do differs with the way."""
    (status, over_http), (nats_status, over_nats) = await refused(stack, body)
    assert nats_status == status
    for name in ("type", "code", "param"):
        assert over_nats[name] == over_http[name], name
