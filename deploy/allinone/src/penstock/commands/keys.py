"""`penstock keys`: the API keys of the tenants."""

import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock.errors import OperatorError
from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import (
    DEFAULT_OVERLAP_S,
    CreatedKey,
    CreateKey,
    KeyList,
    ListedKey,
    ListKeys,
    RevokeKey,
    RotateKey,
)
from penstock_shared.contracts.accounts import KeyRecord, Role

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_CREATE_HELP = """Create an API key. Its secret is shown now and never again.

Examples:

  penstock keys create acme --name ci

  penstock keys create acme --name dashboard --role read-only --expires-in 90d

  export OPENAI_API_KEY=$(penstock keys create acme --name ci --json | jq -r .secret)
"""
_ROTATE_HELP = """Make a key's successor: another secret, the same name, role and lifetime.

The old key goes on working for the overlap, so that its users can change over.

Examples:

  penstock keys rotate key_0f1e2d3c4b5a6978

  penstock keys rotate key_0f1e2d3c4b5a6978 --overlap 30m
"""
_LIST_HELP = """List the API keys, revoked ones included. Secrets are not stored.

Examples:

  penstock keys list

  penstock keys list --tenant acme --json
"""
_REVOKE_HELP = """Revoke an API key: it stops working everywhere within a second.

Examples:

  penstock keys revoke key_0f1e2d3c4b5a6978
"""


def create(
    tenant: Annotated[str, typer.Argument(help="Whose key it is.")],
    name: Annotated[str, typer.Option(help="What it is for.")],
    role: Annotated[Role, typer.Option(help="What it may do.")] = Role.MEMBER,
    expires_in: Annotated[
        str | None, typer.Option(help="When it ends: 90d, 12h, 30m; never if left out.")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an API key."""
    expires_in_s = None if expires_in is None else _seconds(expires_in)
    command = build(CreateKey, tenant=tenant, name=name, role=role, expires_in_s=expires_in_s)
    created = ask_billing(data_dir, subjects.accounts("create-key"), command, CreatedKey)
    _show_created(created, as_json=as_json)


def rotate(
    key_id: Annotated[str, typer.Argument(help="The key's id, from `penstock keys list`.")],
    overlap: Annotated[
        str, typer.Option(help="How long the old key goes on working.")
    ] = f"{DEFAULT_OVERLAP_S // 3600}h",
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key's successor."""
    command = build(RotateKey, key_id=key_id, overlap_s=_seconds(overlap))
    created = ask_billing(data_dir, subjects.accounts("rotate-key"), command, CreatedKey)
    _show_created(created, as_json=as_json)


def list_all(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the API keys."""
    keys: list[ListedKey] = []
    has_more = True
    while has_more:
        query = build(ListKeys, tenant=tenant, after=keys[-1].key_id if keys else None)
        page = ask_billing(data_dir, subjects.accounts("list-keys"), query, KeyList)
        keys += page.keys
        has_more = page.has_more
    if as_json:
        typer.echo(KeyList(keys=tuple(keys)).model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    now = datetime.now(UTC)
    show_table(
        ("KEY", "TENANT", "NAME", "ROLE", "SECRET", "CREATED", "EXPIRES", "LAST USED", "STATE"),
        [_row(key, now) for key in keys],
    )


def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, from `penstock keys list`.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke an API key."""
    command = build(RevokeKey, key_id=key_id)
    record = ask_billing(data_dir, subjects.accounts("revoke-key"), command, KeyRecord)
    if as_json:
        typer.echo(record.model_dump_json())
        return
    typer.echo(f"Key {record.key_id} ({record.name}) of {record.tenant} is revoked.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Create, list, rotate and revoke API keys.", no_args_is_help=True)
    group.command("create", help=_CREATE_HELP)(create)
    group.command("rotate", help=_ROTATE_HELP)(rotate)
    group.command("list", help=_LIST_HELP)(list_all)
    group.command("revoke", help=_REVOKE_HELP)(revoke)
    app.add_typer(group, name="keys")


def _seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d{1,9})([smhd])", duration)
    if match is None:
        raise OperatorError(
            f"{duration!r} is no duration.",
            "Write a number and a unit: 90d, 12h, 30m or 45s; --help shows examples.",
        )
    return int(match[1]) * _UNITS_S[match[2]]


def _show_created(created: CreatedKey, *, as_json: bool) -> None:
    if as_json:
        typer.echo(created.model_dump_json())
        return
    typer.echo(created.secret)
    typer.echo(
        f"This is the only time that the secret of {created.key.key_id} is shown: keep it safe.",
        err=True,
    )


def _row(key: ListedKey, now: datetime) -> tuple[str, ...]:
    return (
        key.key_id,
        key.tenant,
        key.name,
        key.role.value,
        f"…{key.hint}",
        f"{key.created_at:%Y-%m-%d}",
        "never" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d %H:%M}",
        "-" if key.last_used_at is None else f"{key.last_used_at:%Y-%m-%d %H:%M}",
        _state(key, now),
    )


def _state(key: ListedKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "works"
