"""`penstock quotas`: how much of their quotas tenants have used; and how quotas are written."""

from collections.abc import Iterable
from typing import Annotated

import typer
from pydantic import ValidationError

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock.errors import OperatorError
from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import ListQuotas, QuotaList
from penstock_shared.contracts.quotas import Quota, QuotaPeriod, QuotaState, QuotaUnit

_SHOW_HELP = """Show what is settled, reserved and left of the tenants' quotas.

Reserved is the most that open requests may still use; the rest comes back when they end.

Examples:

  penstock quotas show

  penstock quotas show acme --json
"""
_SOFT = "soft:"
_NAMES = ", ".join(f"{unit.value}/{period.value}" for unit in QuotaUnit for period in QuotaPeriod)

QuotaOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="UNIT/PERIOD=LIMIT",
        help=f"A quota, for {_NAMES}; repeatable. As soft:UNIT/PERIOD=LIMIT it refuses nothing.",
    ),
]
NoQuotaOption = Annotated[
    list[str] | None,
    typer.Option("--no-quota", metavar="UNIT/PERIOD", help="A quota to lift; repeatable."),
]


def show(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how quotas stand."""
    query = build(ListQuotas, tenant=tenant)
    answer = ask_billing(data_dir, subjects.accounts("list-quotas"), query, QuotaList)
    if as_json:
        typer.echo(answer.model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    numbers = ("LIMIT", "SETTLED", "RESERVED", "LEFT")
    show_table(
        ("TENANT", "QUOTA", *numbers, "RESETS AT"),
        [_row(state) for state in answer.quotas],
        right=set(numbers),
    )


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="How tenants' quotas stand.", no_args_is_help=True)
    group.command("show", help=_SHOW_HELP)(show)
    app.add_typer(group, name="quotas")


def changed(
    quotas: Iterable[Quota], given: Iterable[str], lifted: Iterable[str]
) -> tuple[Quota, ...]:
    """The quotas, with those that were typed in place of their like, and without the lifted ones.

    Raises:
        OperatorError: what was typed is no quota.
    """
    by_name = {_name(quota): quota for quota in quotas}
    for text in lifted:
        by_name.pop(_name(_parse(f"{text}=0", text)), None)
    for quota in (_parse(text, text) for text in given):
        by_name[_name(quota)] = quota
    return tuple(by_name.values())


def _parse(text: str, typed: str) -> Quota:
    name, _, limit = text.removeprefix(_SOFT).partition("=")
    unit, _, period = name.partition("/")
    fields = {"unit": unit, "period": period, "limit": limit, "soft": text.startswith(_SOFT)}
    try:
        return Quota.model_validate(fields)
    except ValidationError as error:
        raise OperatorError(
            f"{typed!r} is no quota.",
            f"Write one of {_NAMES} and the limit: tokens/day=1000000.",
        ) from error


def _name(quota: Quota) -> str:
    return f"{_SOFT if quota.soft else ''}{quota.unit.value}/{quota.period.value}"


def _row(state: QuotaState) -> tuple[str, ...]:
    numbers = (state.limit, state.settled, state.reserved, state.left)
    return (
        state.tenant,
        _name(state),
        *(f"{number:,}" for number in numbers),
        f"{state.resets_at:%Y-%m-%d %H:%M} UTC",
    )
