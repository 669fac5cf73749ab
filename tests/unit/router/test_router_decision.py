"""The plain rule: named models, tiers by price, features that are numbers."""

from __future__ import annotations

import pytest

from penstock_router.domain.decision import HARD_AT, decide, difficulty
from penstock_router.domain.features import features_of
from penstock_shared.contracts.errors import NotFoundError, UnavailableError
from penstock_shared.contracts.models import Engine, ModelRecord
from penstock_shared.contracts.requests import ChatMessage, Content
from penstock_shared.contracts.usage import Price


def model(name: str, price: int, engine: Engine = Engine.CTRANSLATE2) -> ModelRecord:
    return ModelRecord(
        name=name,
        version="1",
        engine=engine,
        parameters=1,
        context_tokens=1024,
        price=Price(input_microusd_per_1k=price, output_microusd_per_1k=price),
    )


SMALL, LARGE = model("small", 10), model("large", 80)
ECHO = model("echo", 0, Engine.ECHO)


def content(text: str) -> Content:
    return Content(messages=(ChatMessage(role="user", content=text),))


EASY = content("How do I return a jacket?")
HARD = content(
    "Hi there! I would like three blue mugs, two lamps and a chair, please. No, make that four "
    "mugs, and cancel the lamps. Also, can you tell me about your opening hours?"
)


def test_easy_goes_to_the_cheapest_and_hard_to_the_dearest() -> None:
    """The rule spends money only where the message looks hard."""
    models = (LARGE, SMALL, ECHO)
    assert decide("auto", models, EASY, features_of(EASY))[1] is SMALL
    assert decide("auto", models, HARD, features_of(HARD))[1] is LARGE
    assert difficulty(features_of(EASY)) < HARD_AT <= difficulty(features_of(HARD))


def test_a_named_model_is_obeyed_and_an_unknown_one_is_refused_by_name() -> None:
    """The client's choice stands; an unknown name gets a 404 that lists the known ones."""
    assert decide("large", (SMALL, LARGE), EASY, features_of(EASY))[1] is LARGE
    with pytest.raises(NotFoundError, match="large, small") as refused:
        decide("gpt-9", (SMALL, LARGE), EASY, features_of(EASY))
    assert refused.value.param == "model"


def test_without_models_the_client_is_told_to_come_back() -> None:
    """No model yet is transient; the echo model is never chosen automatically."""
    with pytest.raises(UnavailableError):
        decide("auto", (ECHO,), EASY, features_of(EASY))


def test_the_decision_logs_numbers_and_no_content() -> None:
    """What reaches the event log of the features is numbers (I10)."""
    decision, _ = decide("auto", (SMALL, LARGE), HARD, features_of(HARD))
    assert all(isinstance(value, float | int) for value in decision.features.values())
    assert "mug" not in decision.model_dump_json()
