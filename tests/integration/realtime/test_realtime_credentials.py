"""Credentials at every face of the edge: HTTP, WebSocket, NATS; tokens, roles, and their ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import nats
import nats.errors
import pytest
import websockets
from nats.aio.client import Client
from tests.support.billing import eventually
from tests.support.oidc import OidcProvider, provider
from tests.support.realtime import Account, Edge, StartEdge, add_account, suspend
from tests.support.stack import Stack
from websockets.asyncio.client import ClientConnection, connect

from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import Role, SuspensionReason, TenantRecord, hash_api_key
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.responses import RequestState
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.kv import put

SKEW_S = 60
"""What the provider's configuration grants."""


@pytest.fixture
async def oidc() -> AsyncIterator[OidcProvider]:
    async with provider() as running:
        yield running


@pytest.fixture
async def edge(servers: Stack, start_edge: StartEdge, oidc: OidcProvider) -> Edge:
    """An edge that guards the bus, too, and a tenant with a provider of its own."""
    address = servers.addresses["nats_url"].rpartition("@")[2]
    edge = await start_edge(
        auth_callout_seed=servers.secrets["auth_callout_seed"],
        nats_sys_url=f"nats://sys:{servers.secrets['nats_system_password']}@{address}",
        allow_insecure_providers=True,
        allowed_origins="https://app.example",
    )
    await change_tenant(edge, identity_providers=(oidc.config(),))
    async with asyncio.timeout(2):
        async with edge.http(oidc.token()) as client:
            while (await client.get("models")).status_code != 200:
                await asyncio.sleep(0.01)
    return edge


TERMINAL = {"error", "response.completed", "response.failed", "response.incomplete"}


async def change_tenant(edge: Edge, **fields: Any) -> None:
    """What billing writes when an operator updates the tenant."""
    record: TenantRecord = edge.account.tenant.model_copy(update=fields)
    edge.account.tenant = record
    await put(edge.broker, Bucket.TENANTS, record.tenant, record.model_dump_json().encode())


async def change_key(broker: Broker, account: Account, **fields: Any) -> None:
    """What billing writes when a key is rotated."""
    account.record = account.record.model_copy(update=fields)
    value = account.record.model_dump_json().encode()
    await put(broker, Bucket.KEYS, hash_api_key(account.secret), value)


async def open_socket(edge: Edge, secret: str, query: str = "", **headers: str) -> ClientConnection:
    url = f"{edge.base_url.replace('http', 'ws')}/responses{query}"
    return await connect(url, additional_headers={"authorization": f"Bearer {secret}", **headers})


async def closed_with(socket: ClientConnection, within_s: float = 4.0) -> int:
    async with asyncio.timeout(within_s):
        try:
            while True:
                await socket.recv()
        except websockets.ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 0


class OnBus:
    """A tenant's program on NATS, which notices its end."""

    def __init__(self, servers: Stack, tenant: str) -> None:
        self.url = servers.addresses["nats_url"].rpartition("@")[2]
        self.tenant = tenant
        self.gone = asyncio.Event()
        self.denied = asyncio.Event()

    async def connect(self, **credentials: str) -> Client:
        async def ended() -> None:
            self.gone.set()

        async def failed(error: Exception) -> None:
            if "permissions violation" in str(error).lower():
                self.denied.set()

        return await nats.connect(
            self.url,
            inbox_prefix=subjects.inbox_prefix(self.tenant),
            allow_reconnect=False,
            disconnected_cb=ended,
            error_cb=failed,
            **credentials,
        )


async def test_the_sdk_takes_a_token_for_a_key(edge: Edge, oidc: OidcProvider) -> None:
    """A response from beginning to end, by a person whom only the tenant's provider knows."""
    async with edge.client(oidc.token()) as client:
        made = await client.responses.create(model="echo", input="hello")
        assert made.output_text == "hello"
        assert (await client.responses.retrieve(made.id)).output_text == "hello"


async def test_read_only_everywhere(edge: Edge, servers: Stack) -> None:
    """It reads over HTTP and NATS; it makes nothing over HTTP, WebSocket and NATS."""
    tenant = edge.account.tenant.tenant
    reader = await add_account(edge.broker, tenant, role=Role.READ_ONLY)
    await change_tenant(edge)  # adding an account wrote the tenant's record again
    async with edge.client() as client:
        made = (await client.responses.create(model="echo", input="hello")).id
    async with edge.http(reader.secret) as http:
        assert (await http.get(f"responses/{made}")).status_code == 200
        answer = await http.post("responses", json={"model": "echo", "input": "x"})
        assert answer.json()["error"]["code"] == "insufficient_permissions"
    socket = await open_socket(edge, reader.secret)
    await socket.send(json.dumps({"type": "response.create", "model": "echo", "input": "x"}))
    event = json.loads(await asyncio.wait_for(socket.recv(), 5))
    assert event["error"]["code"] == "insufficient_permissions"
    await socket.close()
    on_bus = OnBus(servers, tenant)
    client_ = await on_bus.connect(token=reader.secret)
    ask = json.dumps({"request_id": made}).encode()
    answered = await client_.request(subjects.request_get(tenant), ask, timeout=5)
    request_id = parse_request_id(made)
    assert RequestState.model_validate_json(answered.data).request_id == request_id
    for subject in (
        subjects.submit(tenant),
        subjects.queue(tenant),
        subjects.control(tenant, request_id),
    ):
        on_bus.denied.clear()
        await client_.publish(subject, b"{}")
        await client_.flush()
        await asyncio.wait_for(on_bus.denied.wait(), 5)
    await client_.close()


@pytest.mark.parametrize("option", ["token", "password"])
async def test_a_token_on_the_bus(
    edge: Edge, servers: Stack, oidc: OidcProvider, option: str
) -> None:
    """As token or as password; the server itself cuts the connection when the token ends."""
    on_bus = OnBus(servers, edge.account.tenant.tenant)
    token = oidc.token(exp=int(time.time()) + 3 - SKEW_S)
    credentials = {"token": token} if option == "token" else {"user": "x", "password": token}
    client = await on_bus.connect(**credentials)
    ask = json.dumps({"request_id": "0190e0f0-0000-7000-8000-000000000000"}).encode()
    subject = subjects.request_get(on_bus.tenant)
    reply = json.loads((await client.request(subject, ask, timeout=2)).data)
    assert reply["error"]["code"] == "response_not_found"
    await asyncio.wait_for(on_bus.gone.wait(), 6)
    with pytest.raises(nats.errors.Error):
        await on_bus.connect(**credentials)


async def test_a_bad_token_on_the_bus(edge: Edge, servers: Stack, oidc: OidcProvider) -> None:
    """Neither another audience's nor another issuer's token opens the bus."""
    on_bus = OnBus(servers, edge.account.tenant.tenant)
    for claims in ({"aud": "other"}, {"iss": "https://evil.example"}, {"exp": 1}):
        with pytest.raises(nats.errors.Error):
            await on_bus.connect(token=oidc.token(**claims))


@pytest.mark.parametrize("when", ["when it was made", "by a rotation"])
async def test_a_key_ends(edge: Edge, servers: Stack, when: str) -> None:
    """HTTP refuses at once, the socket and the bus end with it; also if the end came later."""
    ends = datetime.now(UTC) + timedelta(seconds=2)
    account = edge.account
    if when == "when it was made":
        await change_key(edge.broker, account, expires_at=ends)
        await asyncio.sleep(0.2)
    socket = await open_socket(edge, account.secret)
    on_bus = OnBus(servers, account.tenant.tenant)
    client = await on_bus.connect(token=account.secret)
    if when == "by a rotation":
        await change_key(edge.broker, account, expires_at=ends)
    assert await closed_with(socket) == 1008
    assert datetime.now(UTC) >= ends
    async with edge.http() as http:
        answer = await http.get("models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "expired_api_key")
    await asyncio.wait_for(on_bus.gone.wait(), 4)
    with pytest.raises(nats.errors.Error):
        await on_bus.connect(token=account.secret)
    await client.close()


async def test_a_subject_ends_with_its_token(edge: Edge, oidc: OidcProvider) -> None:
    """A WebSocket that a token opened is closed when the token ends."""
    socket = await open_socket(edge, oidc.token(exp=int(time.time()) + 2 - SKEW_S))
    assert await closed_with(socket) == 1008


async def test_a_suspension_reaches_subjects(
    edge: Edge, servers: Stack, oidc: OidcProvider
) -> None:
    """Whoever came with a token loses socket and bus like everybody; another tenant stays."""
    other = await edge.add_account(f"{edge.account.tenant.tenant}o")
    theirs = await open_socket(edge, other.secret)
    socket = await open_socket(edge, oidc.token())
    on_bus = OnBus(servers, edge.account.tenant.tenant)
    client = await on_bus.connect(token=oidc.token())
    await suspend(edge.broker, edge.account)
    assert await closed_with(socket) == 1008
    await asyncio.wait_for(on_bus.gone.wait(), 2)
    async with edge.http(oidc.token()) as http:
        assert (await http.get("models")).json()["error"]["code"] == "tenant_suspended"
        await suspend(edge.broker, edge.account, SuspensionReason.PAST_DUE)

        async def is_told() -> bool:
            answer = await http.get("models")
            error = answer.json()["error"]
            assert answer.status_code == 403
            return error["code"] == "tenant_past_due" and "payment is past due" in error["message"]

        await eventually(is_told, 1)
    await theirs.ping()
    await theirs.close()
    await client.close()


async def test_a_provider_that_is_removed(edge: Edge, servers: Stack, oidc: OidcProvider) -> None:
    """Its subjects lose their connections; the tenant's API keys keep theirs."""
    socket = await open_socket(edge, oidc.token())
    kept = await open_socket(edge, edge.account.secret)
    on_bus = OnBus(servers, edge.account.tenant.tenant)
    client = await on_bus.connect(token=oidc.token())
    await change_tenant(edge, identity_providers=())
    assert await closed_with(socket) == 1008
    await asyncio.wait_for(on_bus.gone.wait(), 2)
    async with edge.http(oidc.token()) as http:
        assert (await http.get("models")).json()["error"]["code"] == "invalid_token"
    await kept.ping()
    await kept.close()
    await client.close()


async def test_no_credential_in_a_url_and_no_foreign_page(edge: Edge) -> None:
    """For WebSockets too, valid or not; an allowed page's socket opens, with a header even."""
    secret = edge.account.secret
    for query, origin, status in (
        (f"?api_key={secret}", None, 401),
        (f"?access_token={secret}", None, 401),
        ("", "https://evil.example", 403),
        ("", "null", 403),
    ):
        headers = {} if origin is None else {"origin": origin}
        with pytest.raises(websockets.InvalidStatus) as refused:
            await open_socket(edge, secret, query, **headers)
        assert refused.value.response.status_code == status
    socket = await open_socket(edge, secret, origin="https://app.example")
    await socket.close()
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{edge.base_url}/models?api_key={secret}")
    assert (answer.status_code, secret in answer.text) == (401, False)


async def test_new_terms_hold_for_open_sockets(edge: Edge) -> None:
    """An operator's lower limit reaches a socket that was there before, too (I4)."""
    socket = await open_socket(edge, edge.account.secret)
    await change_tenant(edge, tokens_per_minute=1)
    error: dict[str, Any] = {}
    async with asyncio.timeout(5):
        while error.get("status") != 413:  # more than a whole minute's tokens
            await socket.send('{"type":"response.create","input":"hello"}')
            while (error := json.loads(await socket.recv()))["type"] not in TERMINAL:
                pass
    await socket.close()


async def test_who_introduces_himself_during_a_drain(edge: Edge) -> None:
    """The socket that he opened before is closed with 1012, as every other one is."""
    url = f"{edge.base_url.replace('http', 'ws')}/responses"
    late = await connect(url, additional_headers={"origin": "https://app.example"})
    await edge.app.drain()
    await late.send(json.dumps({"type": "session.start", "token": edge.account.secret}))
    assert await closed_with(late) == 1012
