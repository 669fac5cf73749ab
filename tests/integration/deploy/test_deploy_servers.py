"""NATS, PostgreSQL and Redis as docker-compose.yml configures them, without their containers."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import nats
import nats.errors
import pytest
import redis.asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StorageType
from tests.support.deploy import DOCKER
from tests.support.stack import Stack

from penstock.embedded.binaries import nats_server, postgres_install, redis_server
from penstock_realtime.adapters.nats_auth import CalloutCodec
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.subjects import TenantPermissions
from penstock_shared.runtime.access import Identity


async def login(address: str, user: str, password: str) -> Client:
    return await nats.connect(address, user=user, password=password, allow_reconnect=False)


@pytest.fixture
async def services_bus(compose_bus, variables) -> AsyncIterator[Client]:
    client = await login(compose_bus, "penstock", variables["PENSTOCK_NATS_PASSWORD"])
    yield client
    await client.close()


def test_nats_accepts_its_configuration_as_it_lies_there(bus_environment):
    """`nats-server -t` finds no fault with the file and the generated variables."""
    done = subprocess.run(
        [str(nats_server()), "-t", "--config", str(DOCKER / "nats.conf")],
        env=bus_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def test_the_services_may_store_and_every_write_is_synced(
    compose_bus, services_bus, variables
):
    """I1: JetStream is on, and the server itself says that it syncs always."""
    js = services_bus.jetstream()
    await js.add_stream(name="T", subjects=["t.>"], storage=StorageType.FILE)
    assert (await js.publish("t.x", b"1")).seq == 1
    system = await login(compose_bus, "sys", variables["PENSTOCK_NATS_SYSTEM_PASSWORD"])
    reply = await system.request("$SYS.REQ.SERVER.PING.JSZ", timeout=5)
    await system.close()
    assert json.loads(reply.data)["data"]["config"]["sync_always"] is True


async def test_strangers_are_refused(compose_bus, services_bus):
    """I8: a wrong password is, and so is whoever has none, while realtime does not answer."""

    async def ignore(_: Exception) -> None:
        return

    for options in ({"user": "penstock", "password": "x"}, {"user": "sys", "password": "x"}, {}):
        with pytest.raises((nats.errors.Error, TimeoutError)):
            await asyncio.wait_for(
                nats.connect(compose_bus, allow_reconnect=False, error_cb=ignore, **options), 10
            )


async def test_realtimes_seed_signs_what_the_bus_believes(compose_bus, services_bus, filled):
    """I8: issuer and seed belong together; the tenant gets its subjects and no others."""
    seed = filled["realtime"]["environment"]["PENSTOCK_AUTH_CALLOUT_SEED"]
    codec = CalloutCodec(seed, "PENSTOCK", time.time)
    acme = TenantRecord(tenant="acme", name="Acme", created_at=datetime.now(UTC))
    caller = Identity(acme, "key_1")
    own = TenantPermissions(publish=("v1.acme.>",), subscribe=("v1.acme.>", "_INBOX.>"))

    async def admit(message: Msg) -> None:
        await message.respond(codec.grant(codec.parse(message.data), caller, own))

    await services_bus.subscribe("$SYS.REQ.USER.AUTH", cb=admit)
    await services_bus.flush()
    await services_bus.flush()  # the first PING overtakes nats-py\'s own buffer
    refusals: list[str] = []

    async def note(error: Exception) -> None:
        refusals.append(str(error))

    tenant = await nats.connect(compose_bus, token="psk_1", allow_reconnect=False, error_cb=note)
    inbox = await tenant.subscribe("v1.acme.x")
    await tenant.publish("v1.acme.x", b"own")
    assert (await inbox.next_msg(timeout=5)).data == b"own"
    await tenant.publish("v1.other.x", b"foreign")
    await tenant.flush()
    await tenant.flush()  # the first PING overtakes nats-py\'s own buffer
    await asyncio.sleep(0.1)
    await tenant.close()
    assert any("permissions violation" in refusal.lower() for refusal in refusals)


def run_sql(script: str, dsn: str, password: str) -> None:
    """Run a script as the image's entry point does."""
    done = subprocess.run(
        [str(postgres_install() / "bin" / "psql"), "--no-psqlrc", dsn],
        input=script,
        env={"PATH": os.environ["PATH"], "PENSTOCK_POSTGRES_PASSWORD": password},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
async def compose_database(servers: Stack, variables) -> AsyncIterator[str]:
    """What `postgres.sql` makes, under a name of its own; dropped afterwards."""
    name = f"compose_{secrets.token_hex(4)}"
    password = variables["PENSTOCK_POSTGRES_PASSWORD"]
    script = (DOCKER / "postgres.sql").read_text().replace("penstock", name)
    await asyncio.to_thread(run_sql, script, servers.superuser_dsn, password)
    place = servers.superuser_dsn.rpartition("@")[2].partition("/")[0]
    yield f"postgresql://{name}:{password}@{place}/{name}"
    admin = await asyncpg.connect(servers.superuser_dsn)
    await admin.execute(f"drop database {name} with (force)")
    await admin.execute(f"drop role {name}")
    await admin.close()


async def test_postgres_gets_a_role_that_owns_its_database_and_is_no_superuser(compose_database):
    """I8: row-level security holds for the services, and billing can make its schema."""
    connection = await asyncpg.connect(compose_database)
    row = await connection.fetchrow(
        "select rolsuper, rolbypassrls from pg_roles where rolname = current_user"
    )
    await connection.execute("create schema billing")
    await connection.close()
    assert tuple(row) == (False, False)


@pytest.fixture
def compose_redis(tmp_path: Path, filled) -> Iterator[int]:
    """The Compose file's command, with a folder and a port of the test's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    shell, option, script = filled["redis"]["command"]
    assert (shell, option) == ("sh", "-c")
    place = f"dir {tmp_path}\nbind 127.0.0.1\nport {port}"
    process = subprocess.Popen(
        [shell, option, script.replace("dir /tmp", place)],
        env={
            "PATH": f"{redis_server().parent}:{os.environ['PATH']}",
            **filled["redis"]["environment"],
        },
        stdout=subprocess.DEVNULL,
    )
    yield port
    process.terminate()
    assert process.wait(10) == 0  # the shell handed itself over: the signal reached Redis


async def connect_redis(port: int, password: str | None) -> redis.asyncio.Redis:
    client = redis.asyncio.Redis(port=port, password=password)
    deadline_s = time.monotonic() + 10
    while True:
        try:
            await client.ping()
        except redis.exceptions.AuthenticationError:
            await client.aclose()
            raise
        except redis.exceptions.ConnectionError:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.05)
        else:
            return client


async def test_redis_asks_for_the_password_keeps_nothing_and_never_evicts(compose_redis, variables):
    """I6, I9: nothing on a disk, and a full memory refuses instead of dropping."""
    client = await connect_redis(compose_redis, variables["PENSTOCK_REDIS_PASSWORD"])
    kept = {
        name: (await client.config_get(name))[name]
        for name in ("save", "appendonly", "maxmemory", "maxmemory-policy")
    }
    await client.aclose()
    assert kept == {
        "save": "",
        "appendonly": "no",
        "maxmemory": str(256 << 20),
        "maxmemory-policy": "noeviction",
    }
    with pytest.raises(redis.exceptions.AuthenticationError):
        await connect_redis(compose_redis, None)
