"""What is sealed of a request."""

from __future__ import annotations

from penstock_shared.contracts.requests import ChatMessage, Content


def test_fields_that_say_nothing_are_not_sealed() -> None:
    """`Content` takes no unknown field: the release before must open a plain conversation."""
    told = Content(messages=(ChatMessage(role="user", content="hi"),))
    assert told.to_seal() == '{"messages":[{"role":"user","content":"hi"}]}'


def test_what_is_sealed_is_read_again() -> None:
    """Both forms, and the schema with its own nulls and empty lists."""
    schema = {"enum": [None], "required": []}
    asked = Content(messages=(ChatMessage(role="user", content=""),), output_schema=schema)
    for content in (asked, Content(texts=("a", ""))):
        assert Content.model_validate_json(content.to_seal()) == content
