"""Applies a service's numbered SQL files, each once (ADR 0003)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from importlib.resources import files
from typing import Final

import asyncpg

from penstock_shared.contracts.errors import PermanentError
from penstock_shared.runtime.postgres import Postgres, translated
from penstock_shared.runtime.telemetry import log

_LOCK: Final = "select pg_advisory_xact_lock(hashtextextended($1, 0))"
"""So that replicas that start together do not both migrate."""

_PREPARE: Final = """
create schema if not exists {schema};
create table if not exists {schema}.schema_version (
    version    integer primary key,
    checksum   text not null,
    applied_at timestamptz not null default now()
)"""


async def migrate(postgres: Postgres, schema: str, package: str) -> None:
    """Bring `schema` up to date with `package`'s `migrations/NNNN_*.sql`, whole or not at all.

    Raises:
        UnavailableError: Postgres does not answer.
        PermanentError: an applied file was changed afterwards, or the user may not do what a file
            asks; the message says what an administrator has to run.
    """
    with translated(), _permitted():
        async with postgres.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK, f"penstock.migrate.{schema}")
            await connection.execute(_PREPARE.format(schema=schema))
            rows = await connection.fetch(f"select version, checksum from {schema}.schema_version")  # noqa: S608  a constant of the service's
            applied = {row["version"]: row["checksum"] for row in rows}
            for version, sql in _scripts(package):
                checksum = hashlib.sha256(sql.encode()).hexdigest()
                if version not in applied:
                    await connection.execute(sql)
                    await connection.execute(
                        f"insert into {schema}.schema_version values ($1, $2)",  # noqa: S608
                        version,
                        checksum,
                    )
                    log().info("schema.migrated", schema=schema, version=version)
                elif applied[version] != checksum:
                    msg = f"Migration {version:04} was changed after it was applied: restore it."
                    raise PermanentError(msg, code="migration_changed")


@contextlib.contextmanager
def _permitted() -> Iterator[None]:
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        msg = f"PostgreSQL lets the service change no schema: {error} {error.hint or ''}".rstrip()
        raise PermanentError(msg, code="postgres_refused") from error


def _scripts(package: str) -> list[tuple[int, str]]:
    folder = files(package) / "migrations"
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name[:4]), (folder / name).read_text(encoding="utf-8")) for name in found]
