"""Row-level security: whoever asks for one tenant sees that tenant's rows, whatever is asked (I8).

The tables are read from the catalogue, so one that a migration adds without rights fails here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any, Final

import asyncpg
import pytest
from pydantic import SecretStr
from tests.support.billing import Operator, StartBilling, terminal
from tests.support.stack import Stack

from penstock_billing.adapters.postgres_roles import (
    PLATFORM_ROLE,
    TENANT_ROLE,
    TenantPostgres,
    connect_platform,
    migrate_billing,
)
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.errors import PermanentError, UnavailableError
from penstock_shared.runtime.postgres import Postgres

TENANTS: Final = ("acme", "globex")
ROUTER_ROLE: Final = "penstock_router"
_OF_NOBODY: Final = {
    "notices",
    "outbox",
    "plan_versions",
    "rebuild",
    "reconciled",
    "schema_version",
    "stripe_catalogue",
}
"""What belongs to no tenant, or to the platform's own work: tenants never see it."""
_TABLES: Final = """
select c.relname as name, c.relrowsecurity as secured, c.relforcerowsecurity as forced,
       exists (select from pg_attribute a
               where a.attrelid = c.oid and a.attname = 'tenant' and not a.attisdropped) as tenants
from pg_class c
where c.relnamespace = 'billing'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
order by c.relname"""
_FUNCTIONS: Final = """
select p.proname as name, p.prosecdef as definer,
       coalesce(p.proconfig && array['search_path=pg_catalog, pg_temp'], false) as pinned,
       has_function_privilege('penstock_tenant', p.oid, 'execute') as tenants,
       has_function_privilege('penstock_router', p.oid, 'execute') as routers
from pg_proc p where p.pronamespace = 'billing'::regnamespace"""
_FOR_ROUTERS: Final = {"reserve", "overdue_reservations"}
_SHOWN: Final = "select tenant from billing.{table}"
_INSERT: Final = "insert into billing.{table} ({names}) overriding system value values ({places})"
FORBIDDEN: Final = (
    "update billing.usage set cost_microusd = 0",
    "delete from billing.usage",
    "truncate billing.usage",
    "update billing.transfers set microusd = 1",
    "delete from billing.transfers",
    "update billing.balances set debit = 0",
    "insert into billing.usage_days select * from billing.usage_days",
    "alter table billing.usage disable row level security",
    "alter table billing.transfers disable trigger all",
    "drop policy platform on billing.usage",
    "create table billing.more (tenant text)",
    "select billing.isolate()",
)
_COLUMNS: Final = """
select a.attname as name, t.typname as type
from pg_attribute a join pg_type t on t.oid = a.atttypid
where a.attrelid = ('billing.' || $1)::regclass and a.attnum > 0 and not a.attisdropped
  and a.attgenerated = ''"""


@pytest.fixture
async def database(postgres_dsn: str) -> str:
    """A database with billing's schema."""
    await migrate_billing(SecretStr(postgres_dsn))
    return postgres_dsn


@pytest.fixture
async def superuser(servers: Stack, database: str) -> AsyncIterator[Any]:
    """Someone whom nothing holds back, to make rows that no code would write."""
    name = database.rpartition("/")[2]
    connection = await asyncpg.connect(servers.superuser_dsn, database=name)
    yield connection
    await connection.close()


@pytest.fixture
async def reads(database: str) -> AsyncIterator[TenantPostgres]:
    """As whom tenants' questions are answered."""
    connected = await TenantPostgres.connect(SecretStr(database), 2)
    yield connected
    await connected.close()


@pytest.fixture
async def platform(database: str) -> AsyncIterator[Postgres]:
    """As whom billing meters and closes."""
    connected = await connect_platform(SecretStr(database), 2)
    yield connected
    await connected.close()


async def test_every_table_with_tenants_is_secured(superuser: Any) -> None:
    """Policies hold for the owner, too; what has no tenant is listed by name here (I8)."""
    tables = await superuser.fetch(_TABLES)
    assert {table["name"] for table in tables if not table["tenants"]} == _OF_NOBODY
    assert {
        table["name"]
        for table in tables
        if table["tenants"] and not (table["secured"] and table["forced"])
    } == set()


async def test_no_tenant_sees_anothers_row_in_any_table(
    superuser: Any, reads: TenantPostgres, platform: Postgres
) -> None:
    """A row of each of two tenants in every table: each sees its own, nobody sees nothing (I8)."""
    tables = [row["name"] for row in await superuser.fetch(_TABLES) if row["tenants"]]
    for table in tables:
        await _put_a_row_of_each(superuser, table)
    for table in tables:
        shown = {tenant: await _shown(reads, tenant, table) for tenant in (*TENANTS, "", "nobody")}
        hidden = table in {"api_keys", "token_audiences"}
        own = {tenant: None if hidden else {tenant} for tenant in TENANTS}
        assert shown == {**own, **dict.fromkeys(("", "nobody"), None if hidden else set())}, table
        seen = await platform.fetch(_SHOWN.format(table=table))
        assert {row["tenant"] for row in seen} == set(TENANTS), table


async def test_the_tenant_asked_for_ends_with_the_question(reads: TenantPostgres) -> None:
    """The connection goes back to the pool without it, also after a failure."""
    for tenant in TENANTS:
        with pytest.raises(asyncpg.UndefinedTableError):
            async with reads.of(tenant) as connection:
                await connection.fetch("table billing.nonsense")
    async with reads._postgres.acquire() as connection:
        told = await connection.fetchval("select current_setting('penstock.tenant', true)")
    assert not told


async def test_roles_own_nothing_and_bypass_nothing(superuser: Any) -> None:
    """Neither superusers nor owners, nor allowed to make anything in the schema (I8)."""
    powers = ("rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb", "rolcanlogin")
    owned = "select count(*) from pg_class where relowner = $1::regrole"
    makes = "select has_schema_privilege($1, 'billing', 'create')"
    for role in (PLATFORM_ROLE, TENANT_ROLE, ROUTER_ROLE):
        row = await superuser.fetchrow("select * from pg_roles where rolname = $1", role)
        assert [row[power] for power in powers] == [False] * len(powers)
        assert await superuser.fetchval(owned, role) == 0
        assert not await superuser.fetchval(makes, role)


async def test_billing_itself_changes_no_fact_and_lifts_no_policy(platform: Postgres) -> None:
    """Facts and sums are what the log says, even where the code is wrong (I2, I8)."""
    for statement in FORBIDDEN:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await platform.fetch(statement)


async def test_functions_are_nobodys_but_billings(superuser: Any) -> None:
    """None is for everybody; those that run with the owner's rights look nowhere else (I8)."""
    found = await superuser.fetch(_FUNCTIONS)
    assert {row["name"] for row in found if row["tenants"]} == set()
    assert {row["name"] for row in found if row["routers"]} == _FOR_ROUTERS
    assert {row["name"] for row in found if row["definer"] and not row["pinned"]} == set()


async def test_tenants_questions_change_nothing(reads: TenantPostgres) -> None:
    """The role may read, and its transactions are read-only besides (I8)."""
    async with reads.of("acme") as connection:
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute("update billing.tenants set status = 'active'")


async def test_databases_migrate_at_the_same_moment(servers: Stack, postgres_dsn: str) -> None:
    """Roles belong to the server: six databases that make them at once all succeed."""
    base, _, name = postgres_dsn.rpartition("/")
    owner = base.partition("//")[2].partition(":")[0]
    names = [f"{name}_{number}" for number in range(6)]
    admin = await asyncpg.connect(servers.superuser_dsn)
    try:
        for each in names:
            await admin.execute(f'create database "{each}" owner "{owner}"')
        await asyncio.gather(*(migrate_billing(SecretStr(f"{base}/{each}")) for each in names))
    finally:
        for each in names:
            await admin.execute(f'drop database if exists "{each}" with (force)')
        await admin.close()


async def test_a_user_who_may_make_no_roles_is_told_what_to_have_run(
    servers: Stack, postgres_dsn: str
) -> None:
    """The start ends with the statements; once they have run, the same user migrates."""
    user, name = f"plain_{uuid.uuid4().hex[:8]}", postgres_dsn.rpartition("/")[2]
    admin = await asyncpg.connect(servers.superuser_dsn, database=name)
    rest = postgres_dsn.partition("@")[2]
    try:
        await admin.execute(f"create role {user} login password 'x'")
        await admin.execute(f'alter database "{name}" owner to {user}')
        dsn = SecretStr(f"postgresql://{user}:x@{rest}")
        with pytest.raises(PermanentError) as refused:
            await migrate_billing(dsn)
        assert f"grant penstock_billing, penstock_router, penstock_tenant to {user};" in str(
            refused.value
        )
        for role in (PLATFORM_ROLE, ROUTER_ROLE, TENANT_ROLE):
            with contextlib.suppress(asyncpg.DuplicateObjectError):  # another database has it
                await admin.execute(f"create role {role}")
        with pytest.raises(PermanentError, match="grant the role"):
            await connect_platform(dsn, 1)
        await admin.execute(f"grant {PLATFORM_ROLE}, {ROUTER_ROLE}, {TENANT_ROLE} to {user}")
        await migrate_billing(dsn)
        await (await connect_platform(dsn, 1)).close()
    finally:
        await admin.execute(f"drop owned by {user} cascade")
        await admin.execute(f'alter database "{name}" owner to current_user')
        await admin.execute(f"drop role {user}")
        await admin.close()


async def test_whoever_comes_before_billing_waits_for_it(postgres_dsn: str) -> None:
    """Routers may start first: a role that is not there yet is no answer, and no bad request."""
    router = await Postgres.prepare(
        SecretStr(postgres_dsn), name="router", connections=1, role="penstock_of_tomorrow"
    )
    with pytest.raises(UnavailableError, match="start billing"):
        await router.fetch("select 1")
    await router.close()


async def test_a_login_that_owns_nothing_runs_billing(
    servers: Stack, postgres_dsn: str, start_billing: StartBilling, operator: Operator
) -> None:
    """Only migrations need the owner's address; whoever leaves the role changes no fact either."""
    user, name = f"login_{uuid.uuid4().hex[:8]}", postgres_dsn.rpartition("/")[2]
    own = f"postgresql://{user}:x@{postgres_dsn.partition('@')[2]}"
    await migrate_billing(SecretStr(postgres_dsn))
    admin = await asyncpg.connect(servers.superuser_dsn, database=name)
    try:
        await admin.execute(f"create role {user} login password 'x'")
        await admin.execute(f"grant {PLATFORM_ROLE}, {TENANT_ROLE} to {user}")
        async with start_billing(postgres_dsn=own, postgres_owner_dsn=postgres_dsn):
            await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
            await operator.publish(terminal())
            assert (await operator.caught_up()).rows[0].requests == 1
        session = await asyncpg.connect(own)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.execute("set role none; update billing.usage set cost_microusd = 0")
        await session.close()
    finally:
        await admin.execute(f"drop role {user}")
        await admin.close()


async def _put_a_row_of_each(superuser: Any, table: str) -> None:
    """Rows that need not make sense, past triggers and checks."""
    await superuser.execute("set session_replication_role = replica")
    for check in await superuser.fetch(
        "select conname from pg_constraint where contype = 'c' and conrelid = $1::regclass",
        f"billing.{table}",
    ):
        await superuser.execute(f'alter table billing.{table} drop constraint "{check[0]}"')
    columns = await superuser.fetch(_COLUMNS, table)
    names = ", ".join(f'"{column["name"]}"' for column in columns)
    places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    for number, tenant in enumerate(TENANTS, 1):
        values = [
            tenant if column["name"] == "tenant" else _value(column["type"], number)
            for column in columns
        ]
        insert = _INSERT.format(table=table, names=names, places=places)
        await superuser.execute(insert, *values)


def _value(kind: str, number: int) -> Any:
    values = {
        "text": str(number),
        "uuid": uuid.UUID(int=number),
        "date": date(2026, 1, number),
        "timestamptz": datetime(2026, 1, number, tzinfo=UTC),
        "bool": True,
        "jsonb": json.dumps([]),
        "_text": [],
    }
    return values.get(kind, number)


async def _shown(reads: TenantPostgres, tenant: str, table: str) -> set[str] | None:
    """Whose rows are seen; None: the table is not for tenants at all."""
    try:
        async with reads.of(tenant) as connection:
            return {row[0] for row in await connection.fetch(_SHOWN.format(table=table))}
    except asyncpg.InsufficientPrivilegeError:
        return None
