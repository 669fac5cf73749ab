"""The edge in this process against real servers, with a router and a worker that live here."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support import echo_server
from tests.support.billing import Operator
from tests.support.echo_server import EchoServer
from tests.support.edges import Edges
from tests.support.office import Office, running_billing
from tests.support.realtime import Edge, StartEdge, add_account
from tests.support.realtime_backend import PRICE, Backend
from tests.support.websocket_wire import Wire

from penstock_realtime.app import create_app
from penstock_realtime.settings import Settings
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.keyring import Keyring
from penstock_shared.runtime.kv import BucketStore, put


@pytest.fixture
async def start_edge(
    broker: Broker, nats_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[StartEdge]:
    """Start an edge with settings of the test's own."""
    root_key = os.urandom(32)
    key_file = tmp_path / "root.key"
    key_file.write_text(base64.b64encode(root_key).decode())
    model = ModelRecord(name="echo", version="1", parameters=0, context_tokens=4096, price=PRICE)
    await put(broker, Bucket.MODELS, "echo", model.model_dump_json().encode())

    async with AsyncExitStack() as stack:

        async def start(
            *,
            router: bool = True,
            tenant: str | None = None,
            per_minute: int = 60_000,
            **given: object,
        ) -> Edge:
            values = {"nats_url": nats_url, "redis_url": redis_url, **given}
            settings = Settings(http_port=0, root_key_file=key_file, **values)  # type: ignore[arg-type]
            app = create_app(settings)
            stack.push_async_callback(app.stop)
            # Rate limits live in Redis, which outlives the test: a tenant of its own each time.
            account = await add_account(broker, tenant or f"t{os.urandom(4).hex()}", per_minute)
            await app.start()
            behind = await stack.enter_async_context(_connected(nats_url))
            keyring = Keyring(root_key, BucketStore(behind, Bucket.DATA_KEYS), SystemClock())
            backend = Backend(behind, keyring)
            if router:
                await backend.start()
            return Edge(app, backend, broker, account)

        yield start


@asynccontextmanager
async def _connected(nats_url: str) -> AsyncIterator[Broker]:
    broker = await Broker.connect(nats_url, name="test-backend")
    yield broker
    await broker.close()


@pytest.fixture
async def edge(start_edge: StartEdge) -> Edge:
    """An edge with its usual settings."""
    return await start_edge()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echo_serving() -> AsyncIterator[EchoServer]:
    """The edge's HTTP server around an echo, once per module: its tests share a loop."""
    async with echo_server.running() as running:
        yield running


@pytest.fixture
def echo(echo_serving: EchoServer) -> EchoServer:
    """The same, with nothing noted yet."""
    return echo_serving.forget()


@pytest_asyncio.fixture(loop_scope="module")
async def wire(echo: EchoServer) -> AsyncIterator[Wire]:
    """A WebSocket to it."""
    async with await Wire.open(echo.port) as opened:
        yield opened
    await echo.idle()


@pytest.fixture
async def edges(
    broker: Broker, nats_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[Edges]:
    """A backend and an account; the test starts the edges, several on one backend."""
    async with Edges(broker, nats_url, redis_url, tmp_path) as made:
        yield made


@pytest.fixture
async def billing(
    broker: Broker, nats_url: str, postgres_dsn: str, tmp_path: Path
) -> AsyncIterator[AsyncExitStack]:
    """Billing as in production; closing the stack takes it away."""
    async with running_billing(nats_url, postgres_dsn, tmp_path) as running:
        yield running


@pytest.fixture
async def office(billing: AsyncExitStack, start_edge: StartEdge, broker: Broker) -> Office:
    assert billing is not None
    office = Office(await start_edge(), Operator(broker), f"t{os.urandom(4).hex()}")
    await office.hire()
    return office
