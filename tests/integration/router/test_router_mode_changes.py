"""Modes and breakers of a running router: seen in `/readyz`, told in EVENTS, and over again."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.support.breaking import BROKEN
from tests.support.router import (
    IDS,
    ROOT,
    admit,
    model_record,
    put_model,
    put_tenant,
    routed_of,
)
from tests.support.service_process import ServiceProcess
from tests.support.tcp_proxy import TcpProxy

from penstock_router.adapters.nats_request_log import NatsRequestLog
from penstock_router.app import App
from penstock_router.domain import modes
from penstock_router.domain.breaker import OPEN_S
from penstock_shared.contracts import subjects
from penstock_shared.contracts.ids import PLATFORM
from penstock_shared.contracts.requests import Accepted, Rejected, RequestEnded, Status
from penstock_shared.contracts.routing import MODE_FACT, ROUTER_TOPIC, ModeChanged
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.broker import Broker


async def eventually(check: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not await check():
            await asyncio.sleep(0.05)


async def mode_facts(broker: Broker) -> list[str]:
    """The modes that EVENTS tells of, each once, in their order."""
    subject = subjects.topic_event(PLATFORM, ROUTER_TOPIC, MODE_FACT)
    sequence = 0
    told: dict[str, str] = {}
    while True:
        try:
            message = await broker.jetstream.get_msg(
                EVENTS, seq=sequence + 1, subject=subject, next=True, direct=True
            )
        except Exception:  # noqa: BLE001  the end of the stream
            return list(told.values())
        sequence = message.seq or 0
        assert message.headers is not None
        fact = ModeChanged.model_validate_json(message.data or b"")
        told[message.headers["ce-id"]] = fact.mode.value


async def has_told(broker: Broker, *modes: str) -> bool:
    return await mode_facts(broker) == list(modes)


async def limit_events(broker: Broker, messages: int) -> None:
    """EVENTS takes so many messages and no more; -1 is no limit."""
    config = (await broker.jetstream.stream_info(EVENTS)).config
    config.max_msgs = messages
    await broker.jetstream.update_stream(config)


async def test_a_log_that_takes_no_writes_makes_the_router_read_only(
    broker: Broker, router: App
) -> None:
    """503 `read_only` at once instead of one failed write per request, until a write works (I1)."""
    opened = IDS.new()
    assert isinstance(await admit(broker, opened), Accepted)
    await limit_events(broker, (await broker.jetstream.stream_info(EVENTS)).state.messages)

    async def refused_with(code: str) -> bool:
        reply = await admit(broker, IDS.new())
        assert isinstance(reply, Rejected)
        assert reply.http_status == 503
        assert reply.retry_after_s is not None
        return reply.error.code == code

    assert await refused_with("event_log_full")
    await eventually(lambda: refused_with("read_only"))
    assert router.degradation()["mode"] == "read-only"
    assert router.problems() == []  # it is ready to say so
    assert isinstance(await admit(broker, opened), Accepted)  # what is open is no new request

    await limit_events(broker, -1)

    async def accepted() -> bool:
        return isinstance(await admit(broker, IDS.new()), Accepted)

    await eventually(accepted)
    assert router.degradation()["mode"] == "full"
    await eventually(lambda: has_told(broker, "read-only", "full"))


async def test_requests_that_cannot_be_written_are_no_broken_log(
    broker: Broker, router: App
) -> None:
    """I8: however many writes of tenants fail, one of the router's own that works says it is up."""
    for _ in range(100):
        router._modes.wrote(None)

    async def proved() -> bool:
        return not router._modes.wants_proof

    await eventually(proved)
    assert router.degradation()["mode"] == "full"
    assert await has_told(broker, "full")


async def test_readyz_tells_the_mode_while_the_broker_is_away(
    broker: Broker, nats_url: str, acme: None, tmp_path: Path
) -> None:
    """Not ready without its broker, and read-only; ready and whole again when it is back."""
    there = urlsplit(nats_url)
    (tmp_path / "root.key").write_text(base64.b64encode(ROOT).decode())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with (
        TcpProxy(str(there.hostname), int(there.port or 0)) as proxy,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        by_proxy = there._replace(netloc=there.netloc.rpartition(":")[0] + f":{proxy.port}")
        process = ServiceProcess(
            "penstock_router",
            log_file=tmp_path / "router.log",
            settings={
                "nats_url": by_proxy.geturl(),
                "root_key_file": tmp_path / "root.key",
                "ops_port": port,
            },
        )

        async def told(status: int, mode: str) -> bool:
            try:
                answer = await http.get("/readyz")
            except httpx.HTTPError:
                return False
            body: dict[str, Any] = answer.json()
            return (answer.status_code, body.get("mode")) == (status, mode)

        await process.start()
        try:
            await eventually(lambda: told(200, "full"), 60)
            await proxy.cut()
            await eventually(lambda: told(503, "read-only"))
            await proxy.mend()
            await eventually(lambda: told(200, "full"))
            assert 'router_mode{mode="full"} 1.0' in (await http.get("/metrics")).text
            await eventually(lambda: has_told(broker, "read-only", "full"))
        finally:
            await process.stop()


async def test_failures_open_the_breaker_of_the_tenant_that_had_them(
    broker: Broker, router: App
) -> None:
    """A named model is refused with the time of the next probe; another tenant is served (I8)."""
    await put_tenant(broker, "globex")
    log = NatsRequestLog(broker)
    for request_id in (IDS.new() for _ in range(4)):
        assert isinstance(await admit(broker, request_id, model="small"), Accepted)
        routed = await routed_of(broker, request_id)
        found = await log.last_fact("acme", request_id)
        assert found is not None
        ended = RequestEnded.unstarted(
            routed, datetime.now(UTC), status=Status.FAILED, reason="error", error=BROKEN
        )
        await log.write_ended(ended, found[0], source="/test")

    async def refused() -> bool:
        reply = await admit(broker, IDS.new(), model="small")
        if isinstance(reply, Accepted):
            return False
        assert (reply.http_status, reply.error.code) == (503, "model_failing")
        assert reply.retry_after_s is not None
        return 0 < reply.retry_after_s <= OPEN_S

    await eventually(refused)
    reply = await admit(broker, IDS.new(), tenant="globex", model="small")
    assert isinstance(reply, Accepted)


async def test_dearer_models_that_are_away_leave_the_cheapest(
    broker: Broker, router: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quarantined: cheap-only; promoted again: full, after the quiet time (shortened here)."""
    monkeypatch.setattr(modes, "WORSE_AFTER_S", 0.5)
    monkeypatch.setattr(modes, "BETTER_AFTER_S", 0.5)
    large = model_record("large").model_copy(
        update={"price": Price(input_microusd_per_1k=9, output_microusd_per_1k=9)}
    )

    async def is_in(mode: str) -> bool:
        return router.degradation()["mode"] == mode

    await put_model(broker, large.model_copy(update={"crashed_on": ("a", "b", "c")}))
    await eventually(lambda: is_in("cheap-only"))
    await put_model(broker, large)
    await eventually(lambda: is_in("full"))
    await eventually(lambda: has_told(broker, "cheap-only", "full"))
