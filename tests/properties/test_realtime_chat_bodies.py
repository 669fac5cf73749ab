"""Bodies of chat completions and embeddings that are nearly right: served, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.spoilt_bodies import judge_all, parsed

from penstock_realtime.domain.chat_request import parse_chat
from penstock_realtime.domain.embedding_request import parse_embedding
from penstock_shared.contracts.requests import Content

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHATS: list[dict[str, Any]] = [
    {
        "model": "auto", "max_completion_tokens": 9, "temperature": 0.5, "top_p": 0.5,
        "stream": True, "store": True, "user": "u", "safety_identifier": "s",
        "metadata": {"k": "v"}, "n": 1, "stop": [], "logprobs": False, "modalities": ["text"],
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "n", "schema": SCHEMA, "strict": True, "description": "d"}},
        "tools": [
            {"type": "function", "function": {
                "name": "f", "parameters": SCHEMA, "description": "d", "strict": None}},
            {"type": "function", "function": {"name": "g"}},
        ],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {
            "mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}},
        "messages": [
            {"role": "developer", "content": "d"},
            {"role": "user", "content": [{"type": "text", "text": "t"}]},
            {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c", "content": "o"},
        ],
    },
    {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1,
     "tools": [{"type": "function", "function": {"name": "f"}}],
     "tool_choice": {"type": "function", "function": {"name": "f"}}},
]  # fmt: skip
EMBEDDINGS: list[dict[str, Any]] = [
    {"model": "m", "input": ["a", "b"], "encoding_format": "float", "dimensions": 3, "user": "u"},
    {"model": "auto", "input": "x", "encoding_format": "base64"},
]


def judge_chat(body: dict[str, Any]) -> bool:
    """A conversation that can be sealed, or a 4xx that names its field."""
    request = parsed(parse_chat, body)
    if request is None:
        return False
    content = Content.model_validate_json(request.content())
    assert content.messages == request.turns
    assert content.tools == request.tools
    return True


def judge_embedding(body: dict[str, Any]) -> bool:
    """Texts that can be sealed, or a 4xx that names its field."""
    request = parsed(parse_embedding, body)
    if request is None:
        return False
    assert Content.model_validate_json(request.content()).texts == request.texts
    return True


def test_a_chat_that_is_nearly_right_is_served_or_named() -> None:
    """Never another exception, never an unnamed field."""
    judge_all(6, 1_000, CHATS, judge_chat)


def test_an_embedding_that_is_nearly_right_is_served_or_named() -> None:
    """Never another exception, never an unnamed field."""
    judge_all(7, 1_000, EMBEDDINGS, judge_embedding)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_hundred_thousand_chats_and_embeddings() -> None:
    """The same, outside CI."""
    judge_all(8, 100_000, CHATS, judge_chat)
    judge_all(9, 100_000, EMBEDDINGS, judge_embedding)
