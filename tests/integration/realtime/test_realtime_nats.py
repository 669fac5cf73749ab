"""Tenants on the bus: the auth callout, their permissions, revocation, `requests.get` (I8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from tests.support.realtime import Account, Edge, StartEdge, revoke, suspend
from tests.support.stack import Stack

from penstock_shared.contracts import subjects
from penstock_shared.contracts.responses import RequestState


@pytest.fixture
async def guarded(servers: Stack, start_edge: StartEdge) -> Edge:
    """An edge that answers the auth callout and may disconnect clients."""
    address = servers.addresses["nats_url"].rpartition("@")[2]
    return await start_edge(
        auth_callout_seed=servers.secrets["auth_callout_seed"],
        nats_sys_url=f"nats://sys:{servers.secrets['nats_system_password']}@{address}",
    )


async def connect(servers: Stack, account: Account, **options: object) -> Client:
    """Connect as a tenant does: the API key is the token."""
    return await nats.connect(
        servers.addresses["nats_url"].rpartition("@")[2],
        token=account.secret,
        inbox_prefix=subjects.inbox_prefix(account.tenant.tenant),
        allow_reconnect=False,
        **options,
    )


async def test_a_tenant_asks_for_its_answer(servers: Stack, guarded: Edge) -> None:
    """A key lets its owner in, who reads its own request and nobody else's (I8)."""
    async with guarded.client() as client:
        created = await client.responses.create(input="over http")
    other = await guarded.add_account(f"{guarded.account.tenant.tenant}b")
    mine = await connect(servers, guarded.account)
    theirs = await connect(servers, other)
    try:
        ask = json.dumps({"request_id": created.id}).encode()
        subject = subjects.request_get(guarded.account.tenant.tenant)
        state = RequestState.model_validate_json((await mine.request(subject, ask, timeout=5)).data)
        assert state.final is not None
        assert state.final.text == "over http"
        with pytest.raises(nats.errors.TimeoutError):
            await theirs.request(subject, ask, timeout=0.5)
        foreign = await theirs.request(subjects.request_get(other.tenant.tenant), ask, timeout=5)
        assert json.loads(foreign.data)["error"]["code"] == "response_not_found"
    finally:
        await mine.close()
        await theirs.close()


async def test_a_reply_goes_to_the_tenants_own_inbox_only(servers: Stack, guarded: Edge) -> None:
    """A reply subject outside the tenant's inbox gets no answer, whatever it names (I8)."""
    tenant = guarded.account.tenant.tenant
    heard: list[bytes] = []

    async def hear(msg: Msg) -> None:
        heard.append(msg.data)

    victim = subjects.responses(tenant, "0190e0f0-0000-7000-8000-000000000000")
    await guarded.broker.client.subscribe(victim, cb=hear)
    await guarded.broker.client.flush()
    client = await connect(servers, guarded.account)
    await client.publish(subjects.request_get(tenant), b"{}", reply=victim)
    await client.flush()
    await client.flush()  # the first PING overtakes nats-py\'s own buffer
    await asyncio.sleep(0.2)
    await client.close()
    assert heard == []


async def test_a_wrong_key_is_kept_out(servers: Stack, guarded: Edge) -> None:
    """Neither an unknown nor a suspended tenant's key gets a connection (I8)."""
    await suspend(guarded.broker, guarded.account)
    await asyncio.sleep(0.2)
    with pytest.raises(nats.errors.Error):
        await connect(servers, guarded.account)


@pytest.mark.parametrize("cut", [revoke, suspend])
async def test_revocation_reaches_the_bus_within_a_second(
    servers: Stack, guarded: Edge, cut: Callable[..., Awaitable[None]]
) -> None:
    """A live connection ends once its key is revoked or its tenant suspended; others stay."""
    gone = asyncio.Event()

    async def disconnected() -> None:
        gone.set()

    other = await guarded.add_account(f"{guarded.account.tenant.tenant}c")
    mine = await connect(servers, guarded.account, disconnected_cb=disconnected)
    theirs = await connect(servers, other)
    await cut(guarded.broker, guarded.account)
    await asyncio.wait_for(gone.wait(), 1.0)
    await theirs.flush()
    await theirs.flush()  # the first PING overtakes nats-py\'s own buffer
    await theirs.close()
    await mine.close()
