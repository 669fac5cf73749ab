"""The plain rule: named models, tiers by price, features that are numbers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.decisions import LEXICON, decide_plainly

from penstock_router.domain.candidates import kind_asked_for
from penstock_router.domain.features import features_of
from penstock_router.domain.rule import HARD_AT, difficulty
from penstock_shared.contracts.errors import (
    NotFoundError,
    PermanentError,
    SchemaError,
    UnavailableError,
)
from penstock_shared.contracts.models import Engine, ModelKind, ModelRecord
from penstock_shared.contracts.output_schema import (
    MAX_SCHEMA_BYTES,
    MAX_SCHEMA_DEPTH,
    refuse_unwieldy_schema,
)
from penstock_shared.contracts.requests import ChatMessage, Content
from penstock_shared.contracts.usage import Price


def model(
    name: str,
    price: int,
    engine: Engine = Engine.CTRANSLATE2,
    *,
    kind: ModelKind = ModelKind.TEXT,
    crashed_on: tuple[str, ...] = (),
) -> ModelRecord:
    return ModelRecord(
        name=name,
        version="1",
        engine=engine,
        kind=kind,
        crashed_on=crashed_on,
        parameters=1,
        context_tokens=1024,
        price=Price(input_microusd_per_1k=price, output_microusd_per_1k=price),
    )


SMALL, LARGE = model("small", 10), model("large", 80)
ECHO = model("echo", 0, Engine.ECHO)
EMBED = model("embed", 1, kind=ModelKind.EMBEDDING)
TRANSLATE = model("translate", 1, kind=ModelKind.TRANSLATION)
EVERY = (SMALL, LARGE, ECHO, EMBED, TRANSLATE)


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
    assert decide_plainly("auto", models, EASY).models[0] is SMALL
    assert decide_plainly("auto", models, HARD).models[0] is LARGE
    assert (
        difficulty(features_of(EASY, LEXICON)) < HARD_AT <= difficulty(features_of(HARD, LEXICON))
    )


def test_a_named_model_is_obeyed_and_an_unknown_one_is_refused_by_name() -> None:
    """The client's choice stands; an unknown name gets a 404 that lists the known ones."""
    assert decide_plainly("large", (SMALL, LARGE), EASY).models[0] is LARGE
    with pytest.raises(NotFoundError, match="large, small") as refused:
        decide_plainly("gpt-9", (SMALL, LARGE), EASY)
    assert refused.value.param == "model"


def test_without_models_the_client_is_told_to_come_back() -> None:
    """No model yet is transient; the echo model is never chosen automatically."""
    with pytest.raises(UnavailableError):
        decide_plainly("auto", (ECHO,), EASY)


def test_the_decision_logs_numbers_and_no_content() -> None:
    """What reaches the event log of the features is numbers (I10)."""
    decision = decide_plainly("auto", (SMALL, LARGE), HARD).decision
    assert all(isinstance(value, float | int) for value in decision.features.values())
    assert "mug" not in decision.model_dump_json()


@pytest.mark.parametrize(
    ("name", "given", "fits"),
    [
        ("small", Content(texts=("a",)), False),
        ("auto", Content(texts=("a",)), False),
        ("embed", Content(texts=("a", "b")), True),
        ("embed", EASY, False),
        ("translate", Content(texts=("a",)), True),
        ("translate", Content(texts=("a", "b")), False),
        ("translate", EASY, False),
    ],
)
def test_a_model_serves_only_what_its_kind_takes(name: str, given: Content, fits: bool) -> None:  # noqa: FBT001  parametrised
    """Texts go to encoders, messages to text models, one text to a translation; or a 400."""
    if fits:
        assert decide_plainly(name, EVERY, given).decision.model == name
        return
    with pytest.raises(PermanentError) as refused:
        decide_plainly(name, EVERY, given)
    assert (refused.value.code, refused.value.param) == ("input_not_for_model", "input")


def test_auto_means_text_models_that_work() -> None:
    """Neither an encoder, however cheap, nor a quarantined model is chosen automatically."""
    sick = model("sick", 1, crashed_on=("a", "b", "c"))
    assert decide_plainly("auto", (*EVERY, sick), EASY).models[0] is SMALL
    with pytest.raises(UnavailableError) as refused:
        decide_plainly("auto", (EMBED, TRANSLATE, sick), EASY)
    assert refused.value.code == "no_model"
    assert kind_asked_for("auto", EVERY) is ModelKind.TEXT
    assert kind_asked_for("embed", EVERY) is ModelKind.EMBEDDING


def test_a_quarantined_model_is_refused_and_the_operator_named() -> None:
    """Three different requests, not three crashes on one, put a model into quarantine."""
    with pytest.raises(UnavailableError, match="penstock models promote sick") as refused:
        decide_plainly("sick", (model("sick", 1, crashed_on=("a", "b", "c")),), EASY)
    assert (refused.value.code, refused.value.http_status) == ("model_quarantined", 503)
    tough = model("tough", 1, crashed_on=("a", "a", "a"))
    assert decide_plainly("tough", (tough,), EASY).models[0] is tough


def test_a_schema_is_for_text_models() -> None:
    """A vector follows no schema."""
    asked = Content(texts=("a",), output_schema={})
    with pytest.raises(PermanentError) as refused:
        decide_plainly("embed", EVERY, asked)
    assert refused.value.param == "output_schema"


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


def test_schemas_are_weighed_before_anybody_works_on_them() -> None:
    """At the limits accepted, past them a 422 that names the parameter; no recursion either way."""
    refuse_unwieldy_schema(None, "output_schema")
    refuse_unwieldy_schema(nested(MAX_SCHEMA_DEPTH), "output_schema")
    refuse_unwieldy_schema({"title": "x" * (MAX_SCHEMA_BYTES - 13)}, "output_schema")
    for code, schema in (
        ("schema_too_deep", nested(MAX_SCHEMA_DEPTH + 1)),
        ("schema_too_deep", nested(50_000)),
        ("schema_too_large", {"title": "x" * (MAX_SCHEMA_BYTES - 12)}),
        ("schema_too_large", {"enum": ["\ud800" * MAX_SCHEMA_BYTES]}),
    ):
        with pytest.raises(SchemaError) as refused:
            refuse_unwieldy_schema(schema, "output_schema")
        assert (refused.value.code, refused.value.param) == (code, "output_schema")
        assert refused.value.http_status == 422
