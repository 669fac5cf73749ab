"""`penstock tenants`: who may use the platform."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock.commands.quotas import NoQuotaOption, QuotaOption, changed
from penstock.errors import OperatorError
from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import (
    CreateTenant,
    ListAccounts,
    TenantList,
    UpdateTenant,
)
from penstock_shared.contracts.accounts import TenantRecord, TenantStatus

_CREATE_HELP = """Create a tenant; give it a key next.

Examples:

  penstock tenants create acme --name "Acme Ltd"

  penstock tenants create acme --name "Acme Ltd" --requests-per-minute 600 --max-connections 50

  penstock tenants create gold --name "Gold Ltd" --weight 4
"""
_UPDATE_HELP = """Change a tenant's terms: only what is named changes, at once and everywhere.

A limit of 0 is lifted. A suspended tenant loses its connections and is refused everywhere.

A --quota takes the place of the one with the same unit and period, and what was used in the period
counts; the others stay. --no-quota lifts one. A soft quota refuses nothing: like every other, it is
told in the event log when 50, 80 and 100 % of it are used.

The file of --identity-providers holds a JSON list of the OpenID providers whose tokens are taken
in place of API keys: [{"issuer": "https://id.acme.example", "audiences": ["penstock"],
"role_claim": "roles", "roles": {"ml-admins": "admin"}, "default_role": "member"}]. It replaces
the tenant's list; [] removes all.

Examples:

  penstock tenants update acme --tokens-per-minute 200000 --user-requests-per-minute 60

  penstock tenants update acme --quota tokens/day=1000000 --no-quota requests/month

  penstock tenants update acme --quota soft:microusd/month=50000000

  penstock tenants update acme --identity-providers acme-providers.json

  penstock tenants update acme --status suspended
"""
_LIST_HELP = """List the tenants.

Examples:

  penstock tenants list

  penstock tenants list --json --data-dir ./data
"""

RequestsOption = Annotated[int | None, typer.Option(min=1, help="Its rate limit.")]
TokensOption = Annotated[
    int | None, typer.Option(min=0, help="Input and output tokens together; 0: no limit.")
]
UserRequestsOption = Annotated[
    int | None, typer.Option(min=0, help="Of each key or subject; 0: no limit.")
]
UserTokensOption = Annotated[
    int | None, typer.Option(min=0, help="Of each key or subject; 0: no limit.")
]
ConnectionsOption = Annotated[
    int | None, typer.Option(min=0, help="WebSockets on one instance; 0: the platform's limit.")
]
WeightOption = Annotated[
    int | None, typer.Option(min=1, max=100, help="Its share where tenants compete.")
]
ProvidersOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Its OpenID providers, as JSON.")
]


def create(
    tenant: Annotated[str, typer.Argument(help="Its id: a-z, 0-9, '-' and '_'.")],
    name: Annotated[str, typer.Option(help="Its name for people.")],
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    user_requests_per_minute: UserRequestsOption = None,
    user_tokens_per_minute: UserTokensOption = None,
    max_connections: ConnectionsOption = None,
    weight: WeightOption = None,
    identity_providers: ProvidersOption = None,
    quota: QuotaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a tenant."""
    terms = _terms(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        user_requests_per_minute=user_requests_per_minute,
        user_tokens_per_minute=user_tokens_per_minute,
        max_connections=max_connections,
        weight=weight,
        identity_providers=identity_providers,
    )
    if quota:
        terms["quotas"] = changed((), quota, ())
    command = build(CreateTenant, tenant=tenant, name=name, **terms)
    record = ask_billing(data_dir, subjects.accounts("create-tenant"), command, TenantRecord)
    if as_json:
        typer.echo(record.model_dump_json())
        return
    typer.echo(f"Tenant {record.tenant} ({record.name}) is there.")
    typer.echo(f"Next: penstock keys create {record.tenant} --name first")


def update(
    tenant: Annotated[str, typer.Argument(help="Its id.")],
    name: Annotated[str | None, typer.Option(help="Its name for people.")] = None,
    status: Annotated[TenantStatus | None, typer.Option(help="Whether it may come in.")] = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    user_requests_per_minute: UserRequestsOption = None,
    user_tokens_per_minute: UserTokensOption = None,
    max_connections: ConnectionsOption = None,
    weight: WeightOption = None,
    identity_providers: ProvidersOption = None,
    quota: QuotaOption = None,
    no_quota: NoQuotaOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a tenant's terms."""
    terms = _terms(
        name=name,
        status=status,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        user_requests_per_minute=user_requests_per_minute,
        user_tokens_per_minute=user_tokens_per_minute,
        max_connections=max_connections,
        weight=weight,
        identity_providers=identity_providers,
    )
    if quota or no_quota:
        there = [held for record in _tenants(data_dir, tenant) for held in record.quotas]
        terms["quotas"] = changed(there, quota or (), no_quota or ())
    if not terms:
        raise OperatorError("Nothing to change was named.", "--help shows what can be changed.")
    command = build(UpdateTenant, tenant=tenant, **terms)
    record = ask_billing(data_dir, subjects.accounts("update-tenant"), command, TenantRecord)
    if as_json:
        typer.echo(record.model_dump_json())
        return
    typer.echo(f"Tenant {record.tenant} ({record.name}) is changed; it is {record.status.value}.")


def list_all(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the tenants."""
    tenants = _tenants(data_dir)
    if as_json:
        typer.echo(TenantList(tenants=tenants).model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    columns = ("REQUESTS/MIN", "TOKENS/MIN", "USER REQUESTS", "USER TOKENS", "SOCKETS", "WEIGHT")
    show_table(
        ("TENANT", "NAME", "STATUS", *columns, "PROVIDERS", "CREATED"),
        [_row(tenant) for tenant in tenants],
        right={*columns, "PROVIDERS"},
    )


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Create, change and list tenants.", no_args_is_help=True)
    group.command("create", help=_CREATE_HELP)(create)
    group.command("update", help=_UPDATE_HELP)(update)
    group.command("list", help=_LIST_HELP)(list_all)
    app.add_typer(group, name="tenants")


def _tenants(data_dir: Path | None, tenant: str | None = None) -> tuple[TenantRecord, ...]:
    query = build(ListAccounts, tenant=tenant)
    return ask_billing(data_dir, subjects.accounts("list-tenants"), query, TenantList).tenants


def _terms(identity_providers: Path | None, **given: Any) -> dict[str, Any]:
    """What was named; a limit of 0 becomes none."""
    terms = {
        name: value if value != 0 else None for name, value in given.items() if value is not None
    }
    if identity_providers is not None:
        terms["identity_providers"] = _read_providers(identity_providers)
    return terms


def _read_providers(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OperatorError(
            f"{path} cannot be read as JSON: {error}.",
            "Write a list of providers; `penstock tenants update --help` shows one.",
        ) from error


def _row(tenant: TenantRecord) -> tuple[str, ...]:
    limits = (
        tenant.requests_per_minute,
        tenant.tokens_per_minute,
        tenant.user_requests_per_minute,
        tenant.user_tokens_per_minute,
        tenant.max_connections,
    )
    return (
        tenant.tenant,
        tenant.name,
        _status(tenant),
        *("-" if limit is None else f"{limit:,}" for limit in limits),
        str(tenant.weight),
        str(len(tenant.identity_providers)),
        f"{tenant.created_at:%Y-%m-%d}",
    )


def _status(tenant: TenantRecord) -> str:
    reason = tenant.suspended_reason
    return tenant.status.value if reason is None else f"{tenant.status.value} ({reason.value})"
