"""`previous_response_id`: which turns a request goes on after, and what cannot be gone on with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from penstock_realtime.domain.create_request import parse_create
from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_realtime.ports import ResponseFacts
from penstock_realtime.serving.conversation import Conversations
from penstock_realtime.serving.following import Sources
from penstock_shared.contracts.errors import (
    ConflictError,
    ErasedError,
    NotFoundError,
    PermanentError,
    TooLargeError,
    UnavailableError,
)
from penstock_shared.contracts.requests import (
    Content,
    Decision,
    RequestEnded,
    RequestRouted,
    Sampling,
    Status,
)
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price, Usage

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PRICE = Price(input_microusd_per_1k=1, output_microusd_per_1k=1)
IDS = [f"0190e0f0-0000-7000-8000-{n:012d}" for n in range(9)]
CLOCK = {"type": "function", "name": "clock"}


@dataclass
class World:
    """Facts and a vault in memory: what was sealed for one tenant, subject and id opens as that."""

    facts: dict[tuple[str, str], ResponseFacts] = field(default_factory=dict)
    erased: bool = False
    away: bool = False

    async def of(self, tenant: str, request_id: str) -> ResponseFacts:
        if self.away:
            raise UnavailableError("The log is away.")
        if (tenant, request_id) not in self.facts:
            raise NotFoundError("No such response.")
        return self.facts[tenant, request_id]

    async def seal(self, *place_and_text: str) -> str:
        return json.dumps(place_and_text)

    async def open(self, tenant: str, subject: str, owner: str, name: str, sealed: str) -> bytes:
        if self.erased:
            raise ErasedError("The key was destroyed.")
        *place, text = json.loads(sealed)
        assert place == [tenant, subject, owner, name]
        return str(text).encode()

    async def open_final(self, ended: RequestEnded) -> Any:
        return await Sources.open_final(cast("Sources", self), ended)

    @property
    def vault(self) -> World:
        return self

    @property
    def conversations(self) -> Conversations:
        return Conversations(self.of, cast("Sources", self))

    async def answer(
        self,
        request_id: str,
        answer: str | None,
        *,
        running: bool = False,
        called: int | None = None,
        tenant: str = "t",
        **body: Any,
    ) -> None:
        """One request as it would be asked, routed and ended."""
        given = parse(**body)
        before = await self.conversations.before(tenant, given)
        subject = given.safety_identifier or "key"
        content = given.content(before).decode()
        place = (tenant, subject, request_id)
        routed = RequestRouted(
            request_id=request_id, tenant=tenant, key_id="key", data_subject=subject,
            lane=Lane.STANDARD, attempt=1, price=PRICE, sampling=Sampling(), accepted_at=NOW,
            decision=Decision(policy="p", model="m", probability=1, reason="r", features={}),
            content=await self.seal(*place, "content", content),
            deadline=NOW + timedelta(seconds=9), store=given.store,
        )  # fmt: skip
        sealed = None if answer is None else await self.seal(*place, "output", answer)
        ended = RequestEnded(
            request_id=request_id, tenant=tenant, key_id="key", data_subject=subject, model="m",
            attempt=1, run=None, reason="stop", price=PRICE, output=sealed, called=called,
            status=Status.FAILED if answer is None else Status.COMPLETED,
            usage=Usage(input_tokens=1, output_tokens=1), routed_at=NOW, ended_at=NOW,
        )  # fmt: skip
        self.facts[tenant, request_id] = ResponseFacts(routed, None if running else ended)

    async def heard(self, tenant: str = "t", **body: Any) -> list[tuple[str, str]]:
        """All that the model would be told."""
        given = parse(**body)
        before = await self.conversations.before(tenant, given)
        content = Content.model_validate_json(given.content(before))
        return [(turn.role, turn.content) for turn in content.messages]


def parse(**body: Any) -> GenerationRequest:
    return parse_create(json.dumps({"input": "x", **body}))


async def test_a_request_without_one_has_no_past() -> None:
    """Nothing is looked up."""
    assert await World(away=True).heard(input="hi") == [("user", "hi")]


async def test_a_chain_carries_everything_but_the_instructions() -> None:
    """Each response's own instructions come first; those of the ones before are gone."""
    world = World()
    await world.answer(IDS[0], "a0", input="q0", instructions="i0")
    await world.answer(IDS[1], "a1", input="q1", instructions="i1", previous_response_id=IDS[0])
    assert await world.heard(input="q2", previous_response_id=IDS[1]) == [
        ("user", "q0"), ("assistant", "a0"), ("user", "q1"), ("assistant", "a1"), ("user", "q2"),
    ]  # fmt: skip
    told = await world.heard(input="q2", instructions="i2", previous_response_id=IDS[1])
    assert [text for role, text in told if role == "system"] == ["i2"]
    assert told[0] == ("system", "i2")


async def test_a_system_message_of_the_conversation_stays() -> None:
    """Only `instructions` are a response's own; a message is part of what was said."""
    world = World()
    await world.answer(IDS[0], "a0", input=[{"role": "system", "content": "s"},
                                            {"role": "user", "content": "q0"}])  # fmt: skip
    told = await world.heard(input="q1", previous_response_id=IDS[0])
    assert told == [("system", "s"), ("user", "q0"), ("assistant", "a0"), ("user", "q1")]


async def test_a_chain_outlives_the_response_it_began_with() -> None:
    """Every response holds what came before it."""
    world = World()
    await world.answer(IDS[0], "a0", input="q0")
    await world.answer(IDS[1], "a1", input="q1", previous_response_id=IDS[0])
    del world.facts["t", IDS[0]]
    assert len(await world.heard(input="q2", previous_response_id=IDS[1])) == 5


async def test_another_data_subject_may_go_on_with_it() -> None:
    """Each content opens under its own subject, and is sealed anew under the next one's."""
    world = World()
    await world.answer(IDS[0], "a0", input="q0", safety_identifier="ada")
    await world.answer(IDS[1], "a1", input="q1", safety_identifier="bob",
                       previous_response_id=IDS[0])  # fmt: skip
    assert len(await world.heard(previous_response_id=IDS[1])) == 5


async def test_a_call_and_its_output_go_on() -> None:
    """The call is what the assistant said; the output must name it."""
    world = World()
    await world.answer(IDS[0], '{"zone":"utc"}', called=0, input="q0", tools=[CLOCK])
    output = {"type": "function_call_output", "output": "noon",
              "call_id": f"call_{IDS[0].replace('-', '')}"}  # fmt: skip
    assert await world.heard(input=[output], previous_response_id=IDS[0]) == [
        ("user", "q0"), ("assistant", '{"zone":"utc"}'), ("tool", "noon"),
    ]  # fmt: skip
    with pytest.raises(PermanentError) as caught:
        await world.heard(input=[{**output, "call_id": "x"}], previous_response_id=IDS[0])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "input[0].call_id")


async def test_a_message_can_have_no_output() -> None:
    """The id alone does not make a call."""
    world = World()
    await world.answer(IDS[0], "a0")
    output = {"type": "function_call_output", "output": "noon",
              "call_id": f"call_{IDS[0].replace('-', '')}"}  # fmt: skip
    with pytest.raises(PermanentError) as caught:
        await world.heard(input=[output], previous_response_id=IDS[0])
    assert caught.value.param == "input[0].call_id"


async def test_nobody_elses_response_is_found() -> None:
    """Another tenant's is as unknown as one that never was (I8), and so is an erased one (I10)."""
    world = World()
    await world.answer(IDS[0], "a0")
    said = set()
    for tenant, erased, previous in (
        ("t", False, IDS[1]), ("other", False, IDS[0]), ("t", True, IDS[0]),
    ):  # fmt: skip
        world.erased = erased
        with pytest.raises(PermanentError) as caught:
            await world.heard(tenant, previous_response_id=previous)
        assert (caught.value.code, caught.value.http_status, caught.value.param) == (
            "previous_response_not_found", 400, "previous_response_id",
        )  # fmt: skip
        said.add(caught.value.message.replace(previous.replace("-", ""), "…"))
    assert said == {"Previous response with id 'resp_…' not found."}


async def test_what_runs_is_to_be_waited_for() -> None:
    """409, which SDKs try again by themselves."""
    world = World()
    await world.answer(IDS[0], "a0", running=True)
    with pytest.raises(ConflictError) as caught:
        await world.heard(previous_response_id=IDS[0])
    assert caught.value.code == "previous_response_in_progress"


async def test_what_has_no_answer_cannot_go_on() -> None:
    """A failed response says nothing that could be replied to."""
    world = World()
    await world.answer(IDS[0], None)
    with pytest.raises(PermanentError) as caught:
        await world.heard(previous_response_id=IDS[0])
    assert caught.value.code == "previous_response_without_answer"


async def test_a_log_that_is_away_is_no_not_found() -> None:
    """Nothing is decided about a response that cannot be looked up."""
    with pytest.raises(UnavailableError):
        await World(away=True).heard(previous_response_id=IDS[0])


async def test_a_conversation_can_grow_too_large() -> None:
    """The limit holds for all that the model would be told."""
    world = World()
    await world.answer(IDS[0], "a" * 200_000)
    with pytest.raises(TooLargeError):
        await world.heard(input="b" * 100_000, previous_response_id=IDS[0])
