"""`penstock keys`: the API keys of the tenants."""

from typing import Annotated

import typer

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import (
    CreatedKey,
    CreateKey,
    KeyList,
    KeyRecord,
    ListAccounts,
    RevokeKey,
)

_CREATE_HELP = """Create an API key. Its secret is shown now and never again.

Examples:

  penstock keys create acme --name ci

  export OPENAI_API_KEY=$(penstock keys create acme --name ci --json | jq -r .secret)
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
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an API key."""
    command = build(CreateKey, tenant=tenant, name=name)
    created = ask_billing(data_dir, subjects.accounts("create-key"), command, CreatedKey)
    if as_json:
        typer.echo(created.model_dump_json())
        return
    typer.echo(created.secret)
    typer.echo(
        f"This is the only time that the secret of {created.key.key_id} is shown: keep it safe.",
        err=True,
    )


def list_all(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the API keys."""
    query = build(ListAccounts, tenant=tenant)
    answer = ask_billing(data_dir, subjects.accounts("list-keys"), query, KeyList)
    if as_json:
        typer.echo(answer.model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    show_table(
        ("KEY", "TENANT", "NAME", "SECRET", "CREATED", "STATE"), [_row(key) for key in answer.keys]
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
    group = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
    group.command("create", help=_CREATE_HELP)(create)
    group.command("list", help=_LIST_HELP)(list_all)
    group.command("revoke", help=_REVOKE_HELP)(revoke)
    app.add_typer(group, name="keys")


def _row(key: KeyRecord) -> tuple[str, ...]:
    state = "works" if key.revoked_at is None else f"revoked {key.revoked_at:%Y-%m-%d}"
    created = f"{key.created_at:%Y-%m-%d}"
    return key.key_id, key.tenant, key.name, f"…{key.hint}", created, state
