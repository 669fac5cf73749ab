"""`auto` passes over models that fail or have no time; whoever names one is told."""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

import pytest
from tests.support.breaking import BROKEN, ended
from tests.support.decisions import NOW, decide_plainly
from tests.support.router import model_record

from penstock_router.domain.breaker import OPEN_S
from penstock_router.domain.breakers import Breakers
from penstock_router.domain.modes import Modes, Signs
from penstock_router.domain.queue_load import LaneReading, QueueLoad
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.models import ModelLimits, ModelRecord
from penstock_shared.contracts.requests import AUTO_MODEL, ChatMessage, Content
from penstock_shared.contracts.routing import Mode
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price

HELLO = Content(messages=(ChatMessage(role="user", content="How do I return a jacket?"),))


def priced(name: str, price: int) -> ModelRecord:
    both = Price(input_microusd_per_1k=price, output_microusd_per_1k=price)
    return model_record(name).model_copy(update={"price": both})


SMALL, LARGE = priced("small", 10), priced("large", 20)


def broken(*models: str) -> Breakers:
    breakers = Breakers()
    for model in models:
        for number in range(4):
            breakers.observe(ended(number, model=model, error=BROKEN), NOW)
    return breakers


def crowded(*models: str) -> defaultdict[str, QueueLoad]:
    """1,000 jobs wait for each of the models, and one a second is done."""
    loads: defaultdict[str, QueueLoad] = defaultdict(QueueLoad)
    for model in models:
        for second in range(10):
            reading = LaneReading(unfetched=1_000, held=0, delivered=second)
            loads[model].read({Lane.STANDARD: reading}, second)
    return loads


@pytest.mark.parametrize("name", ["small", "large"])
def test_a_model_that_fails_is_not_chosen(name: str) -> None:
    """Neither the cheaper nor the dearer one; it is no candidate either."""
    decided = decide_plainly(AUTO_MODEL, (SMALL, LARGE), HELLO, breakers=broken(name))
    assert [each.model for each in decided.decision.candidates] == [decided.decision.model]
    assert decided.decision.model != name


@pytest.mark.parametrize("name", ["small", "large"])
def test_a_model_whose_queue_outlasts_the_deadline_is_not_chosen(name: str) -> None:
    """A thousand seconds are no use to a request that has sixty: the other model has time."""
    decided = decide_plainly(AUTO_MODEL, (SMALL, LARGE), HELLO, loads=crowded(name))
    assert [each.model for each in decided.decision.candidates] == [decided.decision.model]
    assert decided.decision.model != name


@pytest.mark.parametrize("name", ["small", "large"])
def test_a_model_whose_queue_is_full_is_not_chosen(name: str) -> None:
    """Also where nobody knows how fast it drains: the other model has room."""
    models = [model.model_copy(update={"limits": ModelLimits(queue=2)}) for model in (SMALL, LARGE)]
    loads: defaultdict[str, QueueLoad] = defaultdict(QueueLoad)
    for _ in range(2):
        loads[name].admitted(Lane.STANDARD)
    decided = decide_plainly(AUTO_MODEL, models, HELLO, loads=loads)
    assert decided.decision.model != name


@pytest.mark.parametrize("role", ["user", "system"])
def test_a_model_that_is_too_small_for_the_conversation_is_not_chosen(
    role: Literal["user", "system"],
) -> None:
    """It would end with an error of the client's, though another model can read it all."""
    long = ChatMessage(role=role, content="one two three four " * 100)
    roomy = LARGE.model_copy(update={"context_tokens": 1_000})
    asked = Content(messages=(long, *HELLO.messages), output_schema={"type": "object"})
    decided = decide_plainly(AUTO_MODEL, (SMALL, roomy), asked)
    assert decided.models == (roomy,)
    assert decide_plainly(AUTO_MODEL, (SMALL,), asked).models == (
        SMALL,
    )  # the worker's word counts


def test_what_is_expected_to_be_paid_counts_the_instructions() -> None:
    """Of a conversation all of it is billed, whoever has said it."""
    told = ChatMessage(role="system", content="Answer in one word. " * 50)
    short, long = (
        decide_plainly("small", (SMALL,), Content(messages=messages)).decision
        for messages in (HELLO.messages, (told, *HELLO.messages))
    )
    assert short.expected_cost_microusd is not None
    assert long.expected_cost_microusd is not None
    more = long.expected_cost_microusd - short.expected_cost_microusd
    assert more == pytest.approx(len(told.content) / 4 * 10 / 1000)


def test_a_model_that_fails_is_refused_to_whoever_names_it() -> None:
    """503 at once instead of one more failed request, and when to come back."""
    with pytest.raises(UnavailableError) as refused:
        decide_plainly("small", (SMALL, LARGE), HELLO, breakers=broken("small"))
    assert refused.value.code == "model_failing"
    assert refused.value.retry_after_s == OPEN_S


def test_cheap_only_takes_the_cheapest_and_escalates_nowhere() -> None:
    """Also where the answer is checked, and a second model could try."""
    modes = Modes(batch_wait_limit_s=60)
    poor = Signs(connected=True, dearer_away=True, batch_wait_s=None, facts_behind=0)
    for second in range(4):
        modes.look(poor, second)
    assert modes.mode is Mode.CHEAP_ONLY
    asked = HELLO.model_copy(update={"output_schema": {"type": "object"}})
    decided = decide_plainly(AUTO_MODEL, (SMALL, LARGE), asked, modes=modes)
    assert decided.models == (SMALL,)
