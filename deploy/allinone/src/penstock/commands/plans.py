"""`penstock plans`: what tenants pay."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from penstock.billing_desk import ask_billing, build
from penstock.commands.options import DataDirOption, JsonOption
from penstock.errors import OperatorError
from penstock.money import dollars
from penstock_shared.contracts import subjects
from penstock_shared.contracts.plan_commands import (
    AssignPlan,
    ListPlans,
    ListSubscriptions,
    PlanList,
    PlanOverrides,
    PublishPlan,
    ShowPlan,
    SubscriptionList,
)
from penstock_shared.contracts.plans import PlanTerms, PlanVersion, Subscription

_LIST_HELP = """List the plans, each with its last version.

Examples:

  penstock plans list
"""
_SHOW_HELP = """Show a plan's terms as JSON, in the form that `publish` takes.

Examples:

  penstock plans show team > team.json

  penstock plans show team --version 2
"""
_PUBLISH_HELP = """Publish a plan, or its next version, from a JSON file ("-": standard input).

Amounts are integer micro-dollars; prices of tokens are for 1,000. Tenants that have the plan keep
the version they have until another is assigned. The same terms again are the same version.

Examples:

  penstock plans publish team team.json

  echo '{"title": "Team", "fee_microusd": 20000000, "included_microusd": 20000000}' |
  penstock plans publish team -
"""
_ASSIGN_HELP = """Give a tenant a plan, from the beginning of a day (UTC) on: today or later.

The overrides, a JSON file, hold the tenant's own terms: what is in it takes the place of the
plan's.

Examples:

  penstock plans assign acme team

  penstock plans assign acme team --from 2026-12-01 --overrides acme.json

  penstock plans assign acme pay-as-you-go
"""
_SUBSCRIPTIONS_HELP = """List who has which plan, from which day on.

Examples:

  penstock plans subscriptions acme
"""

_Plan = Annotated[str, typer.Argument(help="The plan's name.")]
_Version = Annotated[int | None, typer.Option(help="[default: the last]")]
B = TypeVar("B", bound=BaseModel)


def list_plans(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the plans."""
    answer = ask_billing(data_dir, subjects.billing("list-plans"), ListPlans(), PlanList)
    if as_json:
        typer.echo(answer.model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    columns = ("FEE", "INCLUDED", "MINIMUM")
    show_table(
        ("PLAN", "VERSION", "TITLE", *columns, "BEYOND"),
        [_row(plan) for plan in answer.plans],
        right={*columns, "VERSION"},
    )


def show(plan: _Plan, version: _Version = None, data_dir: DataDirOption = None) -> None:
    """Show a plan."""
    query = build(ShowPlan, plan=plan, version=version)
    found = ask_billing(data_dir, subjects.billing("show-plan"), query, PlanVersion)
    typer.echo(found.terms.model_dump_json(indent=2))


def publish(
    plan: _Plan,
    file: Annotated[str, typer.Argument(help="The terms.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a plan."""
    command = build(PublishPlan, plan=plan, terms=_read(PlanTerms, file))
    done = ask_billing(data_dir, subjects.billing("publish-plan"), command, PlanVersion)
    if as_json:
        typer.echo(done.model_dump_json())
        return
    typer.echo(f"The plan {done.plan} has the version {done.version}.")
    typer.echo(f"Give it to a tenant: penstock plans assign TENANT {done.plan}")


def assign(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    plan: _Plan,
    version: _Version = None,
    from_: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="[default: today]")
    ] = None,
    overrides: Annotated[
        str | None, typer.Option(metavar="FILE", help="The tenant's own terms, as JSON.")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a tenant a plan."""
    command = build(
        AssignPlan,
        tenant=tenant,
        plan=plan,
        version=version,
        from_day=None if from_ is None else from_.date(),
        overrides=PlanOverrides() if overrides is None else _read(PlanOverrides, overrides),
    )
    done = ask_billing(data_dir, subjects.billing("assign-plan"), command, Subscription)
    if as_json:
        typer.echo(done.model_dump_json())
        return
    since = f"from {done.from_day} on (UTC)"
    typer.echo(f"{done.tenant} has version {done.version} of the plan {done.plan} {since}.")


def subscriptions(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List who has which plan."""
    query = build(ListSubscriptions, tenant=tenant)
    subject = subjects.billing("list-subscriptions")
    answer = ask_billing(data_dir, subject, query, SubscriptionList)
    if as_json:
        typer.echo(answer.model_dump_json())
        return
    from penstock.presentation import show_table  # noqa: PLC0415 - loads rich

    show_table(
        ("TENANT", "FROM", "PLAN", "VERSION"),
        [
            (one.tenant, str(one.from_day), one.plan, str(one.version))
            for one in answer.subscriptions
        ],
        right={"VERSION"},
    )


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="What tenants pay: plans, and who has which.", no_args_is_help=True)
    group.command("list", help=_LIST_HELP)(list_plans)
    group.command("show", help=_SHOW_HELP)(show)
    group.command("publish", help=_PUBLISH_HELP)(publish)
    group.command("assign", help=_ASSIGN_HELP)(assign)
    group.command("subscriptions", help=_SUBSCRIPTIONS_HELP)(subscriptions)
    app.add_typer(group, name="plans")


def _read(model: type[B], file: str) -> B:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(
            f"The file {file} cannot be read.", "Name a file that holds JSON, or '-'."
        ) from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise OperatorError(
            f"The terms in {file} cannot be taken: {where}{where and ': '}{first['msg']}.",
            "Correct them; 'penstock plans show pay-as-you-go' shows the form.",
        ) from error


def _row(plan: PlanVersion) -> tuple[str, ...]:
    terms = plan.terms
    return (
        plan.plan,
        str(plan.version),
        terms.title,
        dollars(terms.fee_microusd),
        dollars(terms.included_microusd),
        dollars(terms.minimum_microusd),
        "charged" if terms.overage else "refused",
    )
