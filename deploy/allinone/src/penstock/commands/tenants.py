"""`penstock tenants`: who may use the platform."""

from typing import Annotated

import typer

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import (
    CreateTenant,
    ListAccounts,
    TenantList,
    TenantRecord,
)

_CREATE_HELP = """Create a tenant; give it a key next.

Examples:

  penstock tenants create acme --name "Acme Ltd"

  penstock tenants create acme --name "Acme Ltd" --requests-per-minute 600

  penstock tenants create gold --name "Gold Ltd" --weight 4
"""
_LIST_HELP = """List the tenants.

Examples:

  penstock tenants list

  penstock tenants list --json --data-dir ./data
"""


def create(
    tenant: Annotated[str, typer.Argument(help="Its id: a-z, 0-9, '-' and '_'.")],
    name: Annotated[str, typer.Option(help="Its name for people.")],
    requests_per_minute: Annotated[int, typer.Option(min=1, help="Its rate limit.")] = 60_000,
    weight: Annotated[
        int, typer.Option(min=1, max=100, help="Its share where tenants compete.")
    ] = 1,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a tenant."""
    command = build(
        CreateTenant,
        tenant=tenant,
        name=name,
        requests_per_minute=requests_per_minute,
        weight=weight,
    )
    record = ask_billing(data_dir, subjects.accounts("create-tenant"), command, TenantRecord)
    if as_json:
        typer.echo(record.model_dump_json())
        return
    typer.echo(f"Tenant {record.tenant} ({record.name}) is there.")
    typer.echo(f"Next: penstock keys create {record.tenant} --name first")


def list_all(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the tenants."""
    answer = ask_billing(data_dir, subjects.accounts("list-tenants"), ListAccounts(), TenantList)
    if as_json:
        typer.echo(answer.model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    show_table(
        ("TENANT", "NAME", "STATUS", "REQUESTS/MIN", "WEIGHT", "CREATED"),
        [
            (
                t.tenant,
                t.name,
                t.status.value,
                f"{t.requests_per_minute:,}",
                str(t.weight),
                _day(t),
            )
            for t in answer.tenants
        ],
        right={"REQUESTS/MIN", "WEIGHT"},
    )


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Create and list tenants.", no_args_is_help=True)
    group.command("create", help=_CREATE_HELP)(create)
    group.command("list", help=_LIST_HELP)(list_all)
    app.add_typer(group, name="tenants")


def _day(record: TenantRecord) -> str:
    return f"{record.created_at:%Y-%m-%d}"
