"""Fixtures that every test may use: real servers, fresh state.

The three servers start once per xdist worker, on free ports, in a directory of their own; streams
are emptied before each test that asks for a broker, and a database is made for each test that
asks for one. A server that is missing fails the test; nothing is skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from nats.js import errors as js_errors
from tests.support.stack import Stack

from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.provision import provision


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """nats-server, PostgreSQL and Redis, without services."""
    with Stack(tmp_path_factory.mktemp("servers") / "data", services="") as stack:
        yield stack


@pytest.fixture
def nats_url(servers: Stack) -> str:
    """The services' own address of the bus; streams are whatever earlier tests left."""
    return str(servers.addresses["nats_url"])


@pytest.fixture
def redis_url(servers: Stack) -> str:
    return str(servers.addresses["redis"])


@pytest.fixture
async def postgres_dsn(servers: Stack) -> AsyncIterator[str]:
    """A fresh database, owned by the services' role; dropped afterwards."""
    name = f"t_{secrets.token_hex(6)}"
    base = str(servers.addresses["postgres"])
    owner = base.partition("//")[2].partition(":")[0]
    await _as_superuser(servers, f'create database "{name}" owner "{owner}"')
    yield f"{base.rpartition('/')[0]}/{name}"
    await _as_superuser(servers, f'drop database "{name}" with (force)')


async def _as_superuser(servers: Stack, statement: str) -> None:
    """A connection per statement: a test may have killed the server since the last one."""
    async with asyncio.timeout(20):
        while True:
            try:
                admin = await asyncpg.connect(servers.superuser_dsn)
                break
            except (asyncpg.PostgresError, OSError):
                await asyncio.sleep(0.1)
    await admin.execute(statement)
    await admin.close()


@pytest.fixture
async def broker(nats_url: str) -> AsyncIterator[Broker]:
    """A connection with every stream provisioned, empty and without consumers."""
    connected = await Broker.connect(nats_url, name="test")
    js = connected.jetstream
    for info in await js.streams_info():
        await js.delete_stream(str(info.config.name))
    await provision(connected, 1)
    yield connected
    with contextlib.suppress(TimeoutError, js_errors.Error):
        await asyncio.wait_for(connected.close(), 5)
