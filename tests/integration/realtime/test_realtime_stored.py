"""The store behind `store`: responses outlive the event log, for their tenant only (I8, I9)."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest
from tests.support.realtime import Edge, StartEdge
from tests.support.realtime_backend import until_cancelled
from tests.support.response_store import ResponseStore, purge_events
from tests.support.retrieving import completed, create, follow
from tests.support.tcp_proxy import TcpProxy


@pytest.fixture
async def edge(start_edge: StartEdge, postgres_dsn: str) -> Edge:
    """An edge with a store."""
    return await start_edge(postgres_dsn=postgres_dsn)


@pytest.fixture
def store(postgres_dsn: str) -> ResponseStore:
    """The schema, as the service's role sees it."""
    return ResponseStore(postgres_dsn)


async def test_a_response_outlives_the_event_log(edge: Edge, store: ResponseStore) -> None:
    """EVENTS and RESPONSES have nothing left: object and stream are the same as ever."""
    async with edge.http() as http:
        told = await create(http, input="one two three", metadata={"a": "b"}, instructions="Brief.")
        response_id = completed(told)["id"]
        await store.whole(1)
        await purge_events(edge.broker, edge.account.tenant.tenant, response_id)
        await edge.broker.jetstream.purge_stream("RESPONSES")
        assert (await http.get(f"responses/{response_id}")).json() == completed(told)
        assert await follow(http, response_id) == told
        assert await follow(http, response_id, starting_after=5) == told[6:]
        ended = await http.post(f"responses/{response_id}/cancel")
        assert ended.json() == completed(told)


async def test_what_is_not_to_be_stored_is_not(edge: Edge, store: ResponseStore) -> None:
    """`store: false` never reaches Postgres, nor does any content in the clear (I10)."""
    async with edge.http() as http:
        for n in range(3):
            await create(http, input=f"secret {n}", store=False)
        kept = completed(await create(http, input="kept secret", metadata={"k": "kept secret"}))
    (row,) = await store.whole(1)
    assert row["request_id"].hex == kept["id"].removeprefix("resp_")
    assert b"secret" not in row["routed"] + row["ended"]


async def test_a_running_response_is_stored_once_it_has_ended(
    edge: Edge, store: ResponseStore
) -> None:
    """The facts are kept as they come."""
    edge.backend.generate = until_cancelled
    async with edge.http() as http:
        made = await http.post("responses", json={"input": "x", "background": True})
        rows = await store.until(lambda rows: len(rows) == 1)
        assert rows[0]["ended"] is None
        cancelled = (await http.post(f"responses/{made.json()['id']}/cancel")).json()
        await store.whole(1)
        await purge_events(edge.broker, edge.account.tenant.tenant, cancelled["id"])
        retrieved = (await http.get(f"responses/{cancelled['id']}")).json()
    assert retrieved == cancelled
    assert retrieved["status"] == "cancelled"


async def test_a_deletion_is_for_good(edge: Edge, store: ResponseStore) -> None:
    """Deleted while it runs, or after it was stored: the tombstone wins, EVENTS or not (I8)."""
    tenant = edge.account.tenant.tenant
    async with edge.http() as http:
        stored = completed(await create(http, input="x"))["id"]
        await store.whole(1)
        assert (await http.delete(f"responses/{stored}")).status_code == 200
        edge.backend.generate = until_cancelled
        made = await http.post("responses", json={"input": "x", "background": True})
        running = made.json()["id"]
        assert (await http.delete(f"responses/{running}")).status_code == 200
        await http.post(f"responses/{running}/cancel")
        rows = await store.until(lambda rows: [row["deleted"] for row in rows] == [True, True])
        assert all(row["routed"] is None and row["ended"] is None for row in rows)
        for gone in (stored, running):
            assert (await http.get(f"responses/{gone}")).status_code == 404
            await purge_events(edge.broker, tenant, gone)
            assert (await http.get(f"responses/{gone}")).status_code == 404
            assert (await http.delete(f"responses/{gone}")).status_code == 404


async def test_a_tenant_sees_its_own_rows_and_no_others(edge: Edge, store: ResponseStore) -> None:
    """In SQL, where every condition was forgotten, and over HTTP (I8)."""
    stranger = await edge.add_account(f"{edge.account.tenant.tenant}-x")
    async with edge.http() as http, edge.http(stranger.secret) as other:
        mine = completed(await create(http, input="mine"))["id"]
        async with asyncio.timeout(5):
            while (await other.get("models")).status_code != 200:
                await asyncio.sleep(0.02)
        theirs = completed(await create(other, input="theirs"))["id"]
        await store.whole(2)
        await purge_events(edge.broker, edge.account.tenant.tenant, mine)
        await purge_events(edge.broker, stranger.tenant.tenant, theirs)
        for client, own, foreign in ((http, mine, theirs), (other, theirs, mine)):
            assert (await client.get(f"responses/{own}")).status_code == 200
            assert (await client.get(f"responses/{foreign}")).status_code == 404
            assert (await client.delete(f"responses/{foreign}")).status_code == 404
    assert [row["tenant"] for row in await store.rows(stranger.tenant.tenant)] == [
        stranger.tenant.tenant
    ]
    assert await store.rows("nobody") == []
    assert await store.rows("") == []
    assert await store.rows(None) == []
    assert await store.execute("delete from realtime.responses") == "DELETE 0"


async def test_postgres_may_be_away(start_edge: StartEdge, postgres_dsn: str) -> None:
    """It starts, is ready and serves without it; what only Postgres has is 503, never 404 (I9)."""
    place = urlsplit(postgres_dsn)
    store = ResponseStore(postgres_dsn)
    async with TcpProxy(place.hostname or "", place.port or 0) as proxy:
        dsn = postgres_dsn.replace(f":{place.port}/", f":{proxy.port}/")
        await proxy.cut()
        edge = await start_edge(postgres_dsn=dsn)
        assert edge.app.problems() == []
        tenant = edge.account.tenant.tenant
        async with edge.http() as http:
            told = [completed(await create(http, input=f"r{n}")) for n in range(3)]
            deleted = completed(await create(http, input="gone"))["id"]
            for response in told:
                assert (await http.get(f"responses/{response['id']}")).json() == response
            assert (await http.delete(f"responses/{deleted}")).status_code == 200
            assert (await http.get(f"responses/{deleted}")).status_code == 404
            unknown = await http.get(f"responses/resp_{'0' * 31}1")
            assert unknown.status_code == 503
            assert unknown.json()["error"]["code"] == "postgres_unavailable"
            assert (await http.delete(f"responses/resp_{'0' * 31}1")).status_code == 503
            assert edge.app.problems() == []
            await proxy.mend()
            rows = await store.until(lambda rows: len(rows) == 4)
            assert sum(row["deleted"] for row in rows) == 1
            for response in told:
                await purge_events(edge.broker, tenant, response["id"])
                assert (await http.get(f"responses/{response['id']}")).json() == response
            await proxy.cut()
            assert (await http.get(f"responses/{told[0]['id']}")).status_code == 503
            assert completed(await create(http, input="more"))["status"] == "completed"


async def test_without_a_store_the_event_log_is_all(start_edge: StartEdge) -> None:
    """No PENSTOCK_POSTGRES_DSN: retrieved and deleted while EVENTS has it, 404 after that."""
    edge = await start_edge()
    tenant = edge.account.tenant.tenant
    async with edge.http() as http:
        first, second = [completed(await create(http, input="x")) for _ in range(2)]
        assert (await http.get(f"responses/{first['id']}")).json() == first
        assert (await http.delete(f"responses/{second['id']}")).status_code == 200
        assert (await http.get(f"responses/{second['id']}")).status_code == 404
        await purge_events(edge.broker, tenant, first["id"])
        assert (await http.get(f"responses/{first['id']}")).status_code == 404


async def test_the_store_is_made_anew_from_the_log(
    start_edge: StartEdge, postgres_dsn: str, store: ResponseStore
) -> None:
    """The schema was dropped: an instance that starts reads EVENTS again, deletions too (I9)."""
    edge = await start_edge(postgres_dsn=postgres_dsn)
    async with edge.http() as http:
        for n in range(4):
            await create(http, input=f"r{n}")
        deleted = completed(await create(http, input="gone"))["id"]
        await http.delete(f"responses/{deleted}")
    before = await store.until(
        lambda rows: len(rows) == 5 and sum(row["deleted"] for row in rows) == 1
    )
    await edge.app.stop()
    await store.execute("drop schema realtime cascade")
    await start_edge(postgres_dsn=postgres_dsn)
    after = await store.until(
        lambda rows: len(rows) == 5 and sum(row["deleted"] for row in rows) == 1
    )
    assert [dict(row) for row in after] == [dict(row) for row in before]


async def test_what_has_expired_is_not_retrieved(
    start_edge: StartEdge, postgres_dsn: str, store: ResponseStore
) -> None:
    """After its time a response is gone, though EVENTS still has it; and it is not stored again."""
    edge = await start_edge(postgres_dsn=postgres_dsn, response_retention_days=2 / 86_400)
    async with edge.http() as http:
        told = completed(await create(http, input="x"))
        assert (await http.get(f"responses/{told['id']}")).json() == told
        async with asyncio.timeout(10):
            while (await http.get(f"responses/{told['id']}")).status_code != 404:
                await asyncio.sleep(0.1)
        assert (await http.delete(f"responses/{told['id']}")).status_code == 404


async def test_a_store_that_refuses_the_service_is_away(
    start_edge: StartEdge, postgres_dsn: str
) -> None:
    """No such database: 503, and no word to a tenant of what the operator got wrong."""
    edge = await start_edge(postgres_dsn=f"{postgres_dsn.rpartition('/')[0]}/secret_name")
    async with edge.http() as http:
        unknown = await http.get(f"responses/resp_{'0' * 31}1")
        assert unknown.status_code == 503
        assert unknown.json()["error"]["code"] == "postgres_unavailable"
        assert "secret_name" not in unknown.text
        assert "PENSTOCK" not in unknown.text
        assert completed(await create(http, input="x"))["status"] == "completed"
