"""`penstock router` as an operator runs it, against a real router."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.support.learning import (
    ended_fact,
    routed_fact,
    write_ended,
    write_feedback,
    write_routed,
)
from tests.support.router import IDS, fail_attempt, model_record, put_model
from typer.testing import CliRunner

from penstock.cli import build_app
from penstock.errors import OperatorError
from penstock_router.app import App
from penstock_shared.contracts.requests import Decision, NextAttempt
from penstock_shared.contracts.routing import Candidate
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime.broker import Broker

Run = Callable[..., Awaitable[Any]]
MISTAKES = [
    (("policy", "show", "nobody"), "penstock tenants list"),
    (("policy", "set", "acme"), "Nothing to change"),
    (("policy", "set", "acme", "--share", "0.1"), "--experiment"),
    (("policy", "set", "acme", "--experiment", "e"), "--candidate-"),
    (("policy", "set", "acme", "--model", "gone"), "penstock models list"),
    (("policy", "set", "acme", "--max-attempts", "99"), "max attempts"),
    (("policy", "set", "acme", "--model", "small", "--all-models"), "one or the other"),
    (("policy", "rollback", "acme"), "no earlier rules"),
    (("policy", "show", "a.>"), "tenant"),
    (("explain", "nonsense"), "no request id"),
    (("explain", "0199a3c4-5b6d-7e8f-9a0b-1c2d3e4f5a6b"), "has no request"),
]


@pytest.fixture
def penstock(nats_url: str) -> Run:
    """Run `penstock router …` in a thread: parsed or plain output, or the error in words."""

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(
            build_app(), ["router", *arguments], env={"PENSTOCK_NATS_URL": nats_url}
        )

    async def run(*arguments: str, refused: bool = False) -> Any:
        done = await asyncio.to_thread(call, *arguments)
        if refused:
            error = done.exception
            assert isinstance(error, OperatorError), done.output
            return f"{error.message} {error.hint}"
        assert done.exit_code == 0, (done.output, done.exception)
        # The router logs to the same standard output: a program would see the last line alone.
        return json.loads(done.stdout.splitlines()[-1]) if "--json" in arguments else done.stdout

    return run


async def test_only_what_is_named_changes(router: App, penstock: Run) -> None:
    """Rules one by one; a confidence of 0 is lifted; all is shown; a rollback undoes the last."""
    await penstock("policy", "set", "acme", "--error-penalty", "5000", "--min-confidence", "0.4")
    changed = await penstock(
        "policy", "set", "acme", "--max-attempts", "3", "--model", "small", "--min-confidence",
        "0", "--json",
    )  # fmt: skip
    rules = changed["rules"]
    assert (rules["error_penalty_microusd"], rules["max_attempts"]) == (5000, 3)
    assert (rules["models"], rules["min_confidence"]) == (["small"], None)
    shown = await penstock("policy", "show", "acme")
    assert "$0.005000" in shown
    assert "operator" in shown
    back = await penstock("policy", "rollback", "acme", "--json")
    assert (back["rules"]["max_attempts"], back["rules"]["min_confidence"]) == (2, 0.4)


async def test_an_experiment_from_the_command_line(
    router: App, broker: Broker, penstock: Run
) -> None:
    """The candidate is today's rules with what is named; while it runs neither side changes."""
    await put_model(broker, model_record("large"))
    begun = await penstock(
        "policy", "set", "acme", "--error-penalty", "7", "--experiment", "try-1", "--share", "0.1",
        "--candidate-model", "large", "--json",
    )  # fmt: skip
    experiment = begun["experiment"]
    assert (experiment["id"], experiment["kind"], experiment["share"]) == ("try-1", "canary", 0.1)
    assert experiment["candidate"] == begun["rules"] | {"models": ["large"]}
    shown = await penstock("policy", "show", "acme")
    assert "Experiment try-1: canary, 10.0% of the users" in shown
    assert "CANDIDATE" in shown
    said = await penstock("policy", "set", "acme", "--max-attempts", "1", refused=True)
    assert "penstock router policy rollback" in said
    ended = await penstock("policy", "rollback", "acme", "--json")
    assert (ended["experiment"], ended["rules"]["error_penalty_microusd"]) == (None, 7)


async def test_mistakes_are_told_with_the_next_step(router: App, penstock: Run) -> None:
    """In a sentence, before or after the router was asked."""
    for arguments, says in MISTAKES:
        assert says in await penstock(*arguments, refused=True)


async def test_a_request_is_explained(router: App, broker: Broker, penstock: Run) -> None:
    """Features, candidates, plan, both attempts, costs, feedback: numbers, and no content (I10)."""
    price = Price(input_microusd_per_1k=1_000, output_microusd_per_1k=2_000)
    decision = Decision(
        policy="learned-v1",
        model="small",
        probability=0.75,
        reason="expected loss 12.0 against 12.0 microusd of the best",
        features={"token_count": 17.0},
        context="QUJD",
        candidates=(
            Candidate(model="small", p_correct=0.8, cost_microusd=3, probability=0.75),
            Candidate(model="large", p_correct=0.9, cost_microusd=9, probability=0.25),
        ),
        experiment="try-1",
        arm="candidate",
        expected_cost_microusd=4.5,
    )
    routed = routed_fact(
        "acme",
        IDS.new(),
        decision=decision,
        price=price,
        plan=(NextAttempt(model="large", price=price), NextAttempt(model="huge", price=price)),
        content="secret",
    )
    await write_routed(broker, routed)
    waiting = await penstock("explain", routed.request_id, "--json")
    assert [each["result"] for each in waiting["attempts"]] == ["open", "planned", "planned"]
    await fail_attempt(broker, routed.request_id)
    await write_ended(broker, ended_fact(routed, attempt=2))
    await write_feedback(broker, routed, 0.5)
    told = await penstock("explain", f"resp_{routed.request_id}", "--json")
    seen = [(each["model"], each["result"], each["cost_microusd"]) for each in told["attempts"]]
    assert seen == [
        ("small", "failed its check", 23),
        ("large", "completed", 23),
        ("huge", "not needed", 0),
    ]
    assert (told["status"], told["cost_microusd"], told["feedback"]) == ("completed", 46, 0.5)
    assert told["decision"]["candidates"][1]["probability"] == 0.25
    text = await penstock("explain", routed.request_id)
    for expected in ("try-1, candidate", "0.7500", "failed its check", "$0.000046", "token_count"):
        assert expected in text
    assert not {"secret", "sealed", "QUJD"} & set((text + json.dumps(told)).split('"'))


async def test_an_id_that_two_tenants_have_used_mixes_nothing(
    router: App, broker: Broker, penstock: Run
) -> None:
    """Clients make the ids: what another tenant did under one is not told as this one's (I8)."""
    ours = routed_fact("acme", IDS.new(), model="small")
    theirs = routed_fact("globex", ours.request_id, model="large")
    for routed in (ours, theirs):
        await write_routed(broker, routed)
    await write_ended(broker, ended_fact(theirs))
    await write_feedback(broker, theirs, 0.0)
    said = await penstock("explain", ours.request_id, refused=True)
    assert "acme, globex" in said
    told = await penstock("explain", ours.request_id, "--tenant", "acme", "--json")
    assert (told["tenant"], told["decision"]["model"]) == ("acme", "small")
    assert (told["status"], told["feedback"]) == (None, None)
    said = await penstock("explain", ours.request_id, "--tenant", "initech", refused=True)
    assert "has no request" in said


async def test_a_mistake_ends_with_status_1(router: App, nats_url: str) -> None:
    """As a program sees it: what to do is on standard error, and nothing else."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "penstock", "router", "policy", "show", "nobody"],
        env={**os.environ, "PENSTOCK_NATS_URL": nats_url},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "penstock tenants list" in done.stderr
    assert "Traceback" not in done.stderr


async def test_help_has_examples(penstock: Run) -> None:
    """Of every command."""
    for command in (("explain",), ("policy", "show"), ("policy", "set"), ("policy", "rollback")):
        assert "Examples:" in await penstock(*command, "--help")
