"""What the metrics say of requests, and that no name in them is a client's choice."""

from __future__ import annotations

import asyncio

from prometheus_client import REGISTRY, generate_latest
from tests.support.realtime import Edge
from tests.support.realtime_backend import Backend, echo
from tests.support.websocket_wire import HANDSHAKE, Wire

from penstock_shared.contracts.jobs import Job

ROUTE = "ResponsesApi.create"


def measured(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"penstock_realtime_{name}", labels) or 0.0


async def test_requests_by_route_and_status(edge: Edge) -> None:
    """Count, duration, first byte and those in flight, by the endpoint's name."""
    release, begun = asyncio.Event(), asyncio.Event()

    async def hold(backend: Backend, job: Job, prompt: str) -> None:
        begun.set()
        await release.wait()
        await echo(backend, job, prompt)

    names = ("requests_total", "request_seconds_count")
    before = {name: measured(name, route=ROUTE, status="200") for name in names}
    first_bytes = measured("time_to_first_byte_seconds_count", route=ROUTE)
    async with edge.http() as client:
        await client.post("responses", json={"input": "x"})  # the route has a name from now on
        edge.backend.generate = hold
        running = asyncio.create_task(client.post("responses", json={"input": "x"}))
        await begun.wait()
        assert measured("requests_in_flight", route=ROUTE) == 1
        release.set()
        assert (await running).status_code == 200
    assert measured("requests_in_flight", route=ROUTE) == 0
    for name in names:
        assert measured(name, route=ROUTE, status="200") == before[name] + 2
    assert measured("time_to_first_byte_seconds_count", route=ROUTE) == first_bytes + 2


async def test_no_path_and_no_tenant_becomes_a_name(edge: Edge) -> None:
    """Whatever is asked for: the number of series stays bounded, and tells nobody's name (I8)."""
    async with edge.http() as client:
        await client.get("made-up-path")
        await client.get("models/made-up-model")
        await client.request("BREW", "responses")
    exposed = generate_latest().decode()
    assert "made-up" not in exposed
    assert "BREW" not in exposed
    assert edge.account.tenant.tenant not in exposed
    assert measured("requests_total", route="none", status="404") > 0


async def test_what_the_protocol_refuses_is_counted(edge: Edge) -> None:
    """400 for what is no HTTP, though no endpoint has heard of it."""
    before = measured("requests_total", route="protocol", status="400")
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.app.http_port)
    writer.write(b"no http at all\r\n\r\n")
    await reader.read()
    writer.close()
    assert measured("requests_total", route="protocol", status="400") == before + 1


async def test_one_websocket_too_many(edge: Edge) -> None:
    """The tenant's own number, told before the upgrade; a place is free once one is closed."""
    account = await edge.add_account(f"{edge.account.tenant.tenant}w", max_connections=1)
    headers = {**HANDSHAKE, "Authorization": f"Bearer {account.secret}"}
    async with await Wire.connect(edge.app.http_port) as first:
        assert (await first.handshake("/v1/responses", headers)).status == 101
        async with await Wire.connect(edge.app.http_port) as second:
            answer = await second.handshake("/v1/responses", headers)
            assert answer.status == 429
            assert b"too_many_connections" in answer.body
            assert "retry-after" in answer.headers
            assert answer.headers["x-content-type-options"] == "nosniff"
    async with asyncio.timeout(10):
        while True:
            async with await Wire.connect(edge.app.http_port) as third:
                if (await third.handshake("/v1/responses", headers)).status == 101:
                    break
            await asyncio.sleep(0.05)
