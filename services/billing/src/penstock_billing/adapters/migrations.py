"""Applies the numbered SQL files beside this module, each once (ADR 0003)."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from penstock_billing.adapters.postgres import Postgres, translated
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.runtime.telemetry import log

_LOCK: Final = 0x70656E73_00000001
"""Advisory lock, so that replicas that start together do not both migrate."""

_PREPARE: Final = """
create schema if not exists billing;
create table if not exists billing.schema_version (
    version    integer primary key,
    checksum   text not null,
    applied_at timestamptz not null default now()
)"""


async def migrate(postgres: Postgres) -> None:
    """Bring the schema up to date, whole or not at all.

    Raises:
        UnavailableError: Postgres does not answer.
        PermanentError: an applied file was changed afterwards.
    """
    with translated():
        async with postgres.acquire() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
            await connection.execute(_PREPARE)
            rows = await connection.fetch("select version, checksum from billing.schema_version")
            applied = {row["version"]: row["checksum"] for row in rows}
            for version, sql in _scripts():
                checksum = hashlib.sha256(sql.encode()).hexdigest()
                if version not in applied:
                    await connection.execute(sql)
                    await connection.execute(
                        "insert into billing.schema_version values ($1, $2)", version, checksum
                    )
                    log().info("schema.migrated", version=version)
                elif applied[version] != checksum:
                    msg = f"Migration {version:04} was changed after it was applied: restore it."
                    raise PermanentError(msg, code="migration_changed")


def _scripts() -> list[tuple[int, str]]:
    folder = files(__package__) / "migrations"
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name[:4]), (folder / name).read_text(encoding="utf-8")) for name in found]
