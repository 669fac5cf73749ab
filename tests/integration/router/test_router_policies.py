"""Operators' commands about policies on real routers, and canaries that end by themselves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.support.learning import ended_fact, write_ended, write_feedback
from tests.support.router import IDS, StartRouter, admit, model_record, put_model, routed_of
from tests.support.worker_rig import until

from penstock_router.app import App
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import ErrorBody, ErrorReply
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import Accepted
from penstock_shared.contracts.routing import PolicySet, PolicyState
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker

POLICY = "v1.acme.events.router.policy"
REFUSED: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({"tenant": "nobody", "rules": {}}, "tenant_not_found", "tenant"),
    ({"rules": {"models": ["small", "gone"]}}, "model_not_found", "rules.models"),
    ({"rules": {"models": ["vectors"]}}, "model_not_text", "rules.models"),
    (
        {"rules": {}, "experiment": {"id": "e", "candidate": {"models": ["gone"]}}},
        "model_not_found",
        "experiment.candidate.models",
    ),
    ({"rules": {"max_attempts": 9}}, "invalid_value", "rules.max_attempts"),
    (
        {"rules": {}, "experiment": {"id": "e", "candidate": {}, "share": 0.9}},
        None,
        "experiment.share",
    ),
    ({"rules": {"choose": "luck"}}, None, "rules.choose"),
    ({"tenant": "a.*", "rules": {}}, None, "tenant"),
    ({"tenant": "v1.>", "rules": {}}, None, "tenant"),
    ({"rules": {"exploration_share": "NaN"}}, None, "rules.exploration_share"),
    ({"rules": {"wish": 1}}, None, "rules.wish"),
    ({}, None, "rules"),
]
CANARY = {"id": "canary-1", "candidate": {"models": ["large"]}, "share": 0.5}


@pytest.fixture(autouse=True)
async def large(acme: None, broker: Broker) -> None:
    """A second model."""
    await put_model(broker, model_record("large"))


async def ask(broker: Broker, verb: str, **question: Any) -> PolicyState | ErrorBody:
    return await ask_plainly(broker, verb, json.dumps({"tenant": "acme"} | question).encode())


async def ask_plainly(broker: Broker, verb: str, payload: bytes) -> PolicyState | ErrorBody:
    reply = await broker.request(subjects.router_command(verb), payload, timeout_s=10)
    if "error" in json.loads(reply.data):
        return ErrorReply.model_validate_json(reply.data).error
    return PolicyState.model_validate_json(reply.data)


async def state(broker: Broker, verb: str, **question: Any) -> PolicyState:
    answer = await ask(broker, verb, **question)
    assert isinstance(answer, PolicyState), answer
    return answer


async def refusal(broker: Broker, verb: str, **question: Any) -> ErrorBody:
    answer = await ask(broker, verb, **question)
    assert isinstance(answer, ErrorBody), answer
    return answer


async def facts(broker: Broker) -> int:
    info = await broker.jetstream.stream_info(EVENTS, subjects_filter=POLICY)
    return sum((info.state.subjects or {}).values())


async def last_fact(broker: Broker) -> PolicySet:
    message = await broker.last_message(EVENTS, POLICY)
    assert message is not None
    return PolicySet.model_validate_json(message.data)


async def test_a_policys_life(router: App, broker: Broker) -> None:
    """Default, set, experiment, its end without promotion, and the rules of before."""
    shown = await state(broker, "show-policy")
    assert (shown.sequence, shown.reason, shown.rules.max_attempts) == (0, "default", 2)
    changed = await state(broker, "set-policy", rules={"max_attempts": 1})
    assert (changed.reason, changed.rules.max_attempts) == ("operator", 1)
    begun = await state(broker, "set-policy", rules={"max_attempts": 1}, experiment=CANARY)
    assert [(arm.arm, arm.requests) for arm in begun.arms] == [("baseline", 0), ("candidate", 0)]
    ended = await state(broker, "rollback-policy")
    assert (ended.experiment, ended.rules.max_attempts) == (None, 1)
    assert (await state(broker, "rollback-policy")).rules.max_attempts == 2
    assert (await state(broker, "rollback-policy")).rules.max_attempts == 1
    shown = await state(broker, "show-policy")
    assert (shown.sequence, shown.rules.max_attempts) == (await last_seq(broker), 1)


async def last_seq(broker: Broker) -> int:
    message = await broker.last_message(EVENTS, POLICY)
    return 0 if message is None else message.sequence


async def test_a_repeated_command_writes_nothing(router: App, broker: Broker) -> None:
    """Whoever never heard the answer may ask again (I1)."""
    first = await state(broker, "set-policy", rules={}, experiment=CANARY)
    again = await state(broker, "set-policy", rules={}, experiment=CANARY, based_on=0)
    assert (again.sequence, await facts(broker)) == (first.sequence, 1)


async def test_an_experiments_id_is_used_once(router: App, broker: Broker) -> None:
    """Neither changed while it runs, nor begun again: late outcomes would be the wrong one's."""
    await state(broker, "set-policy", rules={}, experiment=CANARY)
    changed = await refusal(broker, "set-policy", rules={"max_attempts": 1}, experiment=CANARY)
    assert (changed.code, changed.param) == ("experiment_exists", "experiment.id")
    await state(broker, "rollback-policy")
    await state(broker, "set-policy", rules={"max_attempts": 3})
    again = await refusal(broker, "set-policy", rules={}, experiment=CANARY)
    assert again.code == "experiment_exists"


async def test_nothing_to_roll_back(router: App, broker: Broker) -> None:
    """A tenant that never had other rules."""
    assert (await refusal(broker, "rollback-policy")).code == "nothing_to_roll_back"


async def test_of_many_changes_at_once_one_wins(
    acme: None, start_router: StartRouter, broker: Broker
) -> None:
    """Two routers, sixteen operators who have read the same: the log has one change (I1)."""
    async with start_router(), start_router():
        answers = await asyncio.gather(
            *(
                ask(broker, "set-policy", rules={"error_penalty_microusd": n}, based_on=0)
                for n in range(16)
            )
        )
        won = [answer for answer in answers if isinstance(answer, PolicyState)]
        lost = {answer.code for answer in answers if isinstance(answer, ErrorBody)}
        assert (len(won), lost, await facts(broker)) == (1, {"policy_changed"}, 1)
        shown = await state(broker, "show-policy")
        assert (shown.rules, shown.sequence) == (won[0].rules, won[0].sequence)


async def test_what_is_refused(router: App, broker: Broker) -> None:
    """With the field's name, and nothing is written."""
    await put_model(broker, model_record("vectors", ModelKind.EMBEDDING))
    await until(lambda: _knows(router, "vectors"))
    for question, code, param in REFUSED:
        error = await refusal(broker, "set-policy", **question)
        assert (error.code if code else None, error.param) == (code, param), error
    assert await last_seq(broker) == 0


async def _knows(router: App, model: str) -> bool:
    return router._models.get(model) is not None


async def test_junk_is_answered(router: App, broker: Broker) -> None:
    """A router that was sent junk says so, and goes on."""
    junk = [b"", b"\xff\xfe", b"[]", b"null", b"1e999", b"{" * 5_000, b'{"tenant": "acme"' * 9]
    for verb in ("show-policy", "set-policy", "rollback-policy", "drop-policy"):
        for payload in junk:
            assert isinstance(await ask_plainly(broker, verb, payload), ErrorBody)
    assert (await state(broker, "show-policy")).sequence == 0


async def serve(broker: Broker, users: int, wrong: str) -> dict[tuple[Any, Any], set[str]]:
    """Requests of as many users; all answers on the side `wrong` are judged wrong.

    Returns the models that were chosen on each side of each experiment.
    """
    chosen: dict[tuple[Any, Any], set[str]] = {}
    for user in range(users):
        request_id = IDS.new()
        reply = await admit(broker, request_id, data_subject=f"user-{user}")
        assert isinstance(reply, Accepted), reply
        routed = await routed_of(broker, request_id)
        decision = routed.decision
        chosen.setdefault((decision.experiment, decision.arm), set()).add(decision.model)
        await write_ended(broker, ended_fact(routed))
        if decision.arm == wrong:
            await write_feedback(broker, routed, 0.0)
    return chosen


async def ended(broker: Broker) -> bool:
    return (await last_fact(broker)).experiment is None


async def test_a_bad_canary_is_rolled_back(start_router: StartRouter, broker: Broker) -> None:
    """Its side got its rules, the test decides, one of two routers writes the end, with numbers."""
    async with start_router(), start_router():
        await state(broker, "set-policy", rules={"models": ["small"]}, experiment=CANARY)
        await until(lambda: learned(broker))
        chosen = await serve(broker, 90, wrong="candidate")
        await until(lambda: ended(broker))
        shown = await state(broker, "show-policy")
    sides = {("canary-1", "baseline"): {"small"}, ("canary-1", "candidate"): {"large"}}
    assert {side: chosen[side] for side in sides} == sides
    fact = await last_fact(broker)
    assert (fact.reason, fact.rules.models, await facts(broker)) == ("rolled-back", ("small",), 2)
    assert fact.evidence["candidate_failures"] > fact.evidence["baseline_failures"] == 0
    assert (shown.reason, shown.evidence) == ("rolled-back", fact.evidence)


async def learned(broker: Broker) -> bool:
    """Whether a router's fold has the experiment: a decision tells."""
    request_id = IDS.new()
    await admit(broker, request_id)
    return (await routed_of(broker, request_id)).decision.experiment is not None


async def test_a_split_is_only_compared(start_router: StartRouter, broker: Broker) -> None:
    """However the sides do: its numbers are shown, and nobody ends it."""
    async with start_router():
        await state(broker, "set-policy", rules={}, experiment=CANARY | {"kind": "ab"})
        await until(lambda: learned(broker))
        await serve(broker, 60, wrong="candidate")

        async def counted() -> bool:
            arms = (await state(broker, "show-policy")).arms
            return sum(arm.requests for arm in arms) == 60 and arms[1].failures > 20

        await until(counted)
        await asyncio.sleep(1.2)  # two looks
        assert (await state(broker, "show-policy")).experiment is not None


async def test_a_verdict_outlives_the_router_that_found_it(
    start_router: StartRouter, broker: Broker
) -> None:
    """The outcomes are in the log and no router is: the next one that starts ends it (I2)."""
    async with start_router():
        await state(broker, "set-policy", rules={"models": ["small"]}, experiment=CANARY)
        await until(lambda: learned(broker))
        requests = [IDS.new() for _ in range(90)]
        for user, request_id in enumerate(requests):
            await admit(broker, request_id, data_subject=f"user-{user}")
    for request_id in requests:
        routed = await routed_of(broker, request_id)
        await write_ended(broker, ended_fact(routed))
        if routed.decision.arm == "candidate":
            await write_feedback(broker, routed, 0.0)
    async with start_router():
        await until(lambda: ended(broker))
    assert (await last_fact(broker)).reason == "rolled-back"


async def test_a_purged_log_loses_no_policy(start_router: StartRouter, broker: Broker) -> None:
    """The copy in the bucket is what is left, snapshot or not, and the next change follows it."""
    async with start_router():
        before = await state(broker, "set-policy", rules={"max_attempts": 3})
        await until(lambda: copied(broker, before.sequence))
    await broker.jetstream.purge_stream(EVENTS)
    for key in await kv.read_bucket(broker, Bucket.ROUTER):
        if not key.startswith("policy."):
            await kv.purge(broker, Bucket.ROUTER, key)
    async with start_router() as app:
        assert app._learned.of("acme").rules.max_attempts == 3
        shown = await state(broker, "show-policy")
        assert (shown.sequence, shown.rules.max_attempts) == (before.sequence, 3)
        after = await state(broker, "set-policy", rules={}, based_on=shown.sequence)
        assert after.sequence > before.sequence
        await until(lambda: copied(broker, after.sequence))


async def copied(broker: Broker, sequence: int) -> bool:
    entry = await kv.last_entry(broker, Bucket.ROUTER, "policy.acme")
    return entry is not None and json.loads(entry.data)["sequence"] == sequence


@pytest.mark.parametrize("spoilt", [b"", b"{}", b"\xff", b'{"log": "another", "sequence": 9e9}'])
async def test_a_spoilt_copy_is_replaced(
    start_router: StartRouter, broker: Broker, spoilt: bytes
) -> None:
    """The log has the fact."""
    async with start_router():
        set_to = await state(broker, "set-policy", rules={"max_attempts": 3})
        await until(lambda: copied(broker, set_to.sequence))
    await kv.put(broker, Bucket.ROUTER, "policy.acme", spoilt)
    async with start_router():
        await until(lambda: copied(broker, set_to.sequence))
