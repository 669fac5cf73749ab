"""The three embedded servers under `penstock up`."""

import asyncio
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import nats
import pytest
import redis.asyncio
from nats.aio.client import Client
from nats.js.api import PubAck, StorageType, StreamConfig
from tests.integration.allinone.running_stack import RunningStack, wait_until

from penstock.run_file import started_ticks

STREAM = StreamConfig(name="T", subjects=["t.>"], storage=StorageType.FILE)


async def connect_bus(stack: RunningStack) -> Client:
    return await nats.connect(stack.services_bus().split(","), connect_timeout=5)


async def test_a_killed_bus_returns_on_its_port_with_its_messages(start_stack):
    """I1: what was acknowledged is there after `kill -9`, at the same address."""
    stack = start_stack()
    ready = stack.ready()
    bus = await connect_bus(stack)
    await bus.jetstream().add_stream(STREAM)
    for number in range(20):
        await bus.jetstream().publish("t.x", str(number).encode())
    await bus.close()
    os.kill(ready["pids"]["nats"], signal.SIGKILL)
    stack.restarted("nats", ready["pids"]["nats"])
    bus = await connect_bus(stack)
    info = await bus.jetstream().stream_info("T")
    await bus.close()
    assert info.state.messages == 20


async def test_a_killed_database_returns_on_its_port_with_its_rows(start_stack):
    """Committed rows survive `kill -9` of the postmaster while a backend lives on."""
    stack = start_stack()
    ready = stack.ready()
    lingering = await asyncpg.connect(ready["postgres"])
    await lingering.execute("create table t (n int)")
    await lingering.execute("insert into t select generate_series(1, 100)")
    backend = await lingering.fetchval("select pg_backend_pid()")
    # A stopped backend cannot notice that its postmaster died: the hard case.
    os.kill(backend, signal.SIGSTOP)
    os.kill(ready["pids"]["postgres"], signal.SIGKILL)
    stack.restarted("postgres", ready["pids"]["postgres"])
    lingering.terminate()
    connection = await asyncpg.connect(ready["postgres"])
    assert await connection.fetchval("select count(*) from t") == 100
    await connection.close()
    assert started_ticks(backend) is None


async def test_a_killed_redis_returns_on_its_port_empty(start_stack):
    """I9: nothing may depend on it, so it keeps nothing."""
    stack = start_stack()
    ready = stack.ready()
    client = redis.asyncio.from_url(ready["redis"])
    await client.set("k", "v")
    os.kill(ready["pids"]["redis"], signal.SIGKILL)
    stack.restarted("redis", ready["pids"]["redis"])
    await client.aclose()
    client = redis.asyncio.from_url(ready["redis"])
    assert await client.get("k") is None
    await client.aclose()


async def test_the_services_database_user_is_no_superuser(start_stack):
    """I8: row-level security holds, since superusers, who ignore it, are somebody else."""
    connection = await asyncpg.connect(start_stack().ready()["postgres"])
    row = await connection.fetchrow(
        "select rolsuper, rolbypassrls, rolcreaterole from pg_roles where rolname = current_user"
    )
    await connection.execute("create schema billing")
    fsync = await connection.fetchval("show fsync")
    await connection.close()
    assert tuple(row) == (False, False, True)
    assert fsync == "on"


async def test_no_server_lets_strangers_in_or_listens_beyond_loopback(start_stack):
    """I8: generated passwords are asked for by all three."""
    ready = start_stack().ready()
    dsn, cache = urlsplit(ready["postgres"]), urlsplit(ready["redis"])
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            host=dsn.hostname, port=dsn.port, user="penstock", password="x", database="penstock"
        )
    client = redis.asyncio.from_url(f"redis://{cache.hostname}:{cache.port}")
    with pytest.raises(redis.exceptions.AuthenticationError):
        await client.ping()
    await client.aclose()
    with pytest.raises((nats.errors.Error, TimeoutError)):
        await asyncio.wait_for(nats.connect(ready["nats"], allow_reconnect=False), 10)


def test_no_password_shows_in_the_process_list(start_stack):
    """I8: whoever may list processes learns nothing."""
    stack = start_stack()
    ready = stack.ready()
    passwords = [urlsplit(ready[name]).password for name in ("postgres", "redis")]
    passwords.append(urlsplit(stack.services_bus()).password)
    for pid in ready["pids"].values():
        arguments = Path(f"/proc/{pid}/cmdline").read_text()
        assert not [password for password in passwords if password in arguments]


async def test_three_bus_servers_replicate_and_survive_one(start_stack):
    """I1: with `cluster3` an R3 stream accepts and keeps messages while one node is gone."""
    stack = start_stack(env={"PENSTOCK_NATS_TOPOLOGY": "cluster3"})
    ready = stack.ready()
    assert {"nats", "nats-2", "nats-3"} <= ready["pids"].keys()
    assert len(ready["nats"].split(",")) == 3
    bus = await connect_bus(stack)
    stream = bus.jetstream(timeout=10)
    await stream.add_stream(STREAM.evolve(num_replicas=3))
    await stream.publish("t.x", b"1")
    os.kill(ready["pids"]["nats-3"], signal.SIGKILL)

    async def publish() -> PubAck:
        while True:
            try:
                return await stream.publish("t.x", b"2", timeout=2)
            except (nats.errors.Error, nats.js.errors.Error):
                await asyncio.sleep(0.1)

    ack = await asyncio.wait_for(publish(), 20)
    assert ack.seq >= 2
    await bus.close()
    stack.restarted("nats-3", ready["pids"]["nats-3"])


def test_own_servers_are_used_instead_of_embedded_ones(start_stack):
    """`PENSTOCK_REDIS_URL` of the operator replaces the embedded Redis, and only that."""
    stack = start_stack(env={"PENSTOCK_REDIS_URL": "redis://own.example:6379"})
    ready = stack.ready()
    assert ready["redis"] == "redis://own.example:6379"
    assert ready["pids"].keys() == {"nats", "postgres"}


def test_restarts_are_told_in_run_file_and_ready_file(start_stack):
    """Whoever reads the files finds the process that lives now."""
    stack = start_stack()
    old = stack.ready()["pids"]["redis"]
    os.kill(old, signal.SIGKILL)
    new = stack.restarted("redis", old)
    wait_until(lambda: stack.ready()["pids"].get("redis") == new, "the ready file")
