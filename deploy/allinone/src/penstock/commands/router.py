"""`penstock router`: why a request went where it went, and the policies of tenants."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from penstock.billing_desk import build
from penstock.commands.options import DataDirOption, JsonOption
from penstock.errors import OperatorError
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.routing import (
    Choose,
    Experiment,
    PolicyRules,
    PolicyState,
    RollbackPolicy,
    SetPolicy,
    ShowPolicy,
)

_EXPLAIN_HELP = """Show why a request went where it went, and what became of every attempt.

Features, candidates with their estimates and probabilities, costs, plan and outcome: numbers only,
no content. The id is that of the response.

Examples:

  penstock router explain resp_0199a3c4-5b6d-7e8f-9a0b-1c2d3e4f5a6b

  penstock router explain 0199a3c4-5b6d-7e8f-9a0b-1c2d3e4f5a6b --json | jq .decision.candidates
"""
_SHOW_HELP = """Show a tenant's policy, how its experiment stands, and what was learned.

Examples:

  penstock router policy show acme

  penstock router policy show acme --json
"""
_SET_HELP = """Change a tenant's policy: only what is named changes, at once and everywhere.

With --experiment a share of the users gets the candidate's rules: today's with what the options
--candidate-… say. A canary is rolled back or promoted by a sequential test on failures, latency
and cost; a split (--kind ab) is only compared. An experiment's id is used once, and while it runs
neither side can change.

Examples:

  penstock router policy set acme --error-penalty 5000

  penstock router policy set acme --model small --model large --max-attempts 2

  penstock router policy set acme --experiment try-large-2 --candidate-model small
  --candidate-model large-2

  penstock router policy set acme --experiment split-1 --kind ab --share 0.5
  --candidate-choose cheapest
"""
_ROLLBACK_HELP = """End a tenant's experiment without promotion, or bring back the rules of before.

Examples:

  penstock router policy rollback acme
"""


class Kind(StrEnum):
    """Of an experiment."""

    CANARY = "canary"
    AB = "ab"


_Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]
_Models = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="May be chosen; may be repeated.")
]
_AllModels = Annotated[
    bool, typer.Option("--all-models", help="Any text model may be chosen again.")
]
_CandidateAllModels = Annotated[
    bool, typer.Option("--candidate-all-models", help="Any text model may be chosen.")
]
_Choose = Annotated[Choose | None, typer.Option(help="By what `auto` chooses.")]
_Penalty = Annotated[int | None, typer.Option(help="What one wrong answer costs, in µ$.")]
_Exploration = Annotated[
    float | None, typer.Option(help="The most that exploring may add to the spending, 0 to 1.")
]
_Attempts = Annotated[int | None, typer.Option(help="Models that may try a checked request.")]
_Confidence = Annotated[
    float | None,
    typer.Option(help="Below it an answer goes to the next model, 0 to 1; 0: none is checked."),
]


def explain(
    request: Annotated[str, typer.Argument(help="The request's or response's id.")],
    tenant: Annotated[
        str | None, typer.Option(help="Whose it is, should several have used the id.")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show why a request went where it went."""
    from penstock.router_desk import explain as look_up  # noqa: PLC0415 - loads the bus's client

    try:
        request_id = parse_request_id(request)
    except PermanentError as error:
        raise OperatorError(error.message, "The id is that of the response.") from error
    explanation = look_up(data_dir, request_id, tenant)
    if as_json:
        typer.echo(explanation.model_dump_json())
        return
    from penstock.router_view import show_explanation  # noqa: PLC0415 - loads rich

    show_explanation(explanation)


def show(tenant: _Tenant, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Show a tenant's policy."""
    _print(_ask(data_dir, "show-policy", build(ShowPolicy, tenant=tenant)), as_json=as_json)


def set_policy(
    tenant: _Tenant,
    choose: _Choose = None,
    model: _Models = None,
    all_models: _AllModels = False,
    error_penalty: _Penalty = None,
    exploration_share: _Exploration = None,
    max_attempts: _Attempts = None,
    min_confidence: _Confidence = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="ID", help="Begin an experiment.")
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="[default: canary]")] = None,
    share: Annotated[float | None, typer.Option(help="Of the users.  [default: 0.05]")] = None,
    candidate_choose: _Choose = None,
    candidate_model: _Models = None,
    candidate_all_models: _CandidateAllModels = False,
    candidate_error_penalty: _Penalty = None,
    candidate_exploration_share: _Exploration = None,
    candidate_max_attempts: _Attempts = None,
    candidate_min_confidence: _Confidence = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a tenant's policy."""
    changes = _named(
        choose=choose,
        models=_list(model, every=all_models),
        error_penalty_microusd=error_penalty,
        exploration_share=exploration_share,
        max_attempts=max_attempts,
        min_confidence=min_confidence,
    )
    candidate = _named(
        choose=candidate_choose,
        models=_list(candidate_model, every=candidate_all_models),
        error_penalty_microusd=candidate_error_penalty,
        exploration_share=candidate_exploration_share,
        max_attempts=candidate_max_attempts,
        min_confidence=candidate_min_confidence,
    )
    begun = _named(kind=None if kind is None else kind.value, share=share)
    _require_sense(changes, candidate, begun, experiment)
    state = _ask(data_dir, "show-policy", build(ShowPolicy, tenant=tenant))
    rules = build(PolicyRules, **(dict(state.rules) | changes))
    running = state.experiment
    if experiment is not None:
        tried = build(PolicyRules, **(dict(rules) | candidate))
        running = build(Experiment, id=experiment, candidate=tried, **begun)
    command = SetPolicy(tenant=tenant, rules=rules, experiment=running, based_on=state.sequence)
    _print(_ask(data_dir, "set-policy", command), as_json=as_json)


def rollback(tenant: _Tenant, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """End an experiment without promotion, or bring back the rules of before."""
    state = _ask(data_dir, "show-policy", build(ShowPolicy, tenant=tenant))
    command = RollbackPolicy(tenant=tenant, based_on=state.sequence)
    _print(_ask(data_dir, "rollback-policy", command), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    policy = typer.Typer(help="Show, set and roll back tenants' policies.", no_args_is_help=True)
    policy.command("show", help=_SHOW_HELP)(show)
    policy.command("set", help=_SET_HELP)(set_policy)
    policy.command("rollback", help=_ROLLBACK_HELP)(rollback)
    group = typer.Typer(help="Explain decisions, and set policies.", no_args_is_help=True)
    group.command("explain", help=_EXPLAIN_HELP)(explain)
    group.add_typer(policy, name="policy")
    app.add_typer(group, name="router")


def _ask(data_dir: Path | None, verb: str, question: BaseModel) -> PolicyState:
    from penstock.router_desk import ask_router  # noqa: PLC0415 - loads the bus's client

    return ask_router(data_dir, verb, question)


def _print(state: PolicyState, *, as_json: bool) -> None:
    if as_json:
        typer.echo(state.model_dump_json())
        return
    from penstock.router_view import show_policy  # noqa: PLC0415 - loads rich

    show_policy(state)


def _list(models: list[str] | None, *, every: bool) -> tuple[str, ...] | None:
    if every and models:
        raise OperatorError(
            "Both all models and some were named.", "Leave out the one or the other."
        )
    return () if every else tuple(models) if models else None


def _named(**given: Any) -> dict[str, Any]:
    """What was named; a confidence of 0 becomes none."""
    named = {name: value for name, value in given.items() if value is not None}
    if named.get("min_confidence") == 0:
        named["min_confidence"] = None
    return named


def _require_sense(
    changes: dict[str, Any],
    candidate: dict[str, Any],
    begun: dict[str, Any],
    experiment: str | None,
) -> None:
    if experiment is None and (candidate or begun):
        raise OperatorError(
            "A candidate, kind or share was named without an experiment.",
            "Give the experiment an id with --experiment ID.",
        )
    if experiment is not None and not candidate:
        raise OperatorError(
            "The experiment has no candidate: both sides would be alike.",
            "Say with --candidate-… what it changes; --help shows examples.",
        )
    if not changes and experiment is None:
        raise OperatorError("Nothing to change was named.", "--help shows what can be changed.")
