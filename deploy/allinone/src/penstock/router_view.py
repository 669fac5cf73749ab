"""How the router's answers look on a terminal."""

import typer

from penstock.money import dollars
from penstock.presentation import show_table
from penstock.router_desk import AttemptSeen, Explanation
from penstock_shared.contracts.requests import Decision
from penstock_shared.contracts.routing import ArmState, Experiment, PolicyRules, PolicyState

_NONE = "-"


def show_explanation(explanation: Explanation) -> None:
    """Print the decision, its candidates and features, and every attempt."""
    decision = explanation.decision
    _lines(
        {
            "Request": explanation.request_id,
            "Tenant": f"{explanation.tenant}, lane {explanation.lane}",
            "Accepted": explanation.accepted_at,
            "Decision": f"{decision.model} by {decision.policy}, with probability"
            f" {decision.probability:.4f}",
            "Why": decision.reason,
            "Experiment": _side(decision),
            "Expected": _microusd(decision.expected_cost_microusd)
            + f" with all attempts, exploring {_microusd(decision.exploration_microusd)}",
            "Actual": f"{dollars(explanation.cost_microusd)}, {explanation.status or 'open'}",
            "Feedback": _number(explanation.feedback),
            "Log read": f"up to {decision.learned_seq}",
        }
    )
    _show_candidates(decision)
    _show_attempts(explanation.attempts)
    _title("Features")
    show_table(
        ("FEATURE", "VALUE"),
        [(name, f"{value:g}") for name, value in decision.features.items()],
        right={"VALUE"},
    )


def show_policy(state: PolicyState) -> None:
    """Print the rules, the experiment with both sides, and what was learned."""
    experiment = state.experiment
    set_by = "nobody: the defaults hold" if state.sequence == 0 else state.reason
    _lines({"Tenant": state.tenant, "Set by": set_by, "Fact": f"EVENTS {state.sequence}"})
    _show_rules(state.rules, experiment)
    if experiment is not None:
        _title(
            f"Experiment {experiment.id}: {experiment.kind}, {experiment.share:.1%} of the users"
        )
        show_table(
            ("SIDE", "REQUESTS", "FAILURES", "RATE", "LATENCY MS", "COST µ$"),
            [_arm_row(arm) for arm in state.arms],
            right={"REQUESTS", "FAILURES", "RATE", "LATENCY MS", "COST µ$"},
        )
    if state.evidence:
        _title("What the test had seen")
        show_table(
            ("", "VALUE"),
            [(name.replace("_", " "), f"{value:g}") for name, value in state.evidence.items()],
            right={"VALUE"},
        )
    if state.models:
        _title(f"Learned, from the event log up to {state.events_seq}")
        show_table(
            ("MODEL", "JUDGED", "RIGHT", "OUTPUT TOKENS"),
            [
                (
                    model.model,
                    f"{model.observations:,}",
                    _number(model.success_rate),
                    _number(model.output_tokens),
                )
                for model in state.models
            ],
            right={"JUDGED", "RIGHT", "OUTPUT TOKENS"},
        )


def _show_rules(rules: PolicyRules, experiment: Experiment | None) -> None:
    tried = [] if experiment is None else [experiment.candidate]
    columns = [_rule_cells(each) for each in (rules, *tried)]
    _title("Rules")
    show_table(
        ("RULE", "BASELINE" if tried else "VALUE", *("CANDIDATE" for _ in tried)),
        [(name, *(column[name] for column in columns)) for name in columns[0]],
    )


def _rule_cells(rules: PolicyRules) -> dict[str, str]:
    return {
        "choose": rules.choose.value,
        "models": ", ".join(rules.models) or "all",
        "error penalty": dollars(rules.error_penalty_microusd),
        "exploration share": f"{rules.exploration_share:g}",
        "max attempts": str(rules.max_attempts),
        "min confidence": _number(rules.min_confidence),
    }


def _show_candidates(decision: Decision) -> None:
    if not decision.candidates:
        return
    _title("Candidates")
    show_table(
        ("MODEL", "P(RIGHT)", "COST µ$", "PROBABILITY", ""),
        [
            (
                candidate.model,
                f"{candidate.p_correct:.4f}",
                f"{candidate.cost_microusd:.2f}",
                f"{candidate.probability:.4f}",
                "chosen" if candidate.model == decision.model else "",
            )
            for candidate in decision.candidates
        ],
        right={"P(RIGHT)", "COST µ$", "PROBABILITY"},
    )


def _show_attempts(attempts: tuple[AttemptSeen, ...]) -> None:
    _title("Attempts")
    numbers = ("IN", "OUT", "COST", "QUEUED MS", "FIRST MS", "TOTAL MS", "CONFIDENCE")
    show_table(
        ("ATTEMPT", "MODEL", "RESULT", "WHY", *numbers),
        [
            (
                str(attempt.attempt),
                attempt.model,
                attempt.result,
                attempt.reason or _NONE,
                f"{attempt.input_tokens:,}",
                f"{attempt.output_tokens:,}",
                dollars(attempt.cost_microusd),
                _number(attempt.queued_ms),
                _number(attempt.first_token_ms),
                _number(attempt.total_ms),
                _number(attempt.confidence),
            )
            for attempt in attempts
        ],
        right=set(numbers),
    )


def _arm_row(arm: ArmState) -> tuple[str, ...]:
    rate = f"{arm.failures / arm.requests:.2%}" if arm.requests else _NONE
    return (
        arm.arm,
        f"{arm.requests:,}",
        f"{arm.failures:,}",
        rate,
        _number(arm.mean_latency_ms),
        _number(arm.mean_cost_microusd),
    )


def _side(decision: Decision) -> str:
    return _NONE if decision.experiment is None else f"{decision.experiment}, {decision.arm}"


def _microusd(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f} µ$"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.4g}"


def _title(text: str) -> None:
    typer.echo()
    typer.secho(text, bold=True)


def _lines(facts: dict[str, str]) -> None:
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}{value}")
