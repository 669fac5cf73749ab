"""The `messages` of a chat completion. By hand, for errors that say where.

A call that the assistant made is a turn of its own: its arguments, as the model wrote them. What
names the calls (`tool_call_id`) no model sees, so it is checked here: an answer needs its call.
"""

from __future__ import annotations

from typing import Any, Final, Literal, cast

from penstock_realtime.domain.parameters import (
    missing,
    refuse_unknown,
    unsupported,
    wrong_type,
    wrong_value,
)
from penstock_realtime.domain.text_parts import Kinds, text_of
from penstock_shared.contracts.requests import ChatMessage

_Role = Literal["system", "developer", "user"]
_TEXT: Final[Kinds] = {"text": ("type", "text")}
_NOT_SERVED: Final = ("annotations", "audio", "function_call", "name", "refusal")
"""What the SDKs' own message objects carry along: empty, unless it is used."""
_FIELDS: Final = {
    "system": {"role", "content"},
    "developer": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "parsed"},
    "tool": {"role", "content", "tool_call_id"},
}
_CALL_FIELDS: Final = ("id", "type", "function", "index")
_FUNCTION_FIELDS: Final = ("name", "arguments", "parsed_arguments")
"""`index`, `parsed` and `parsed_arguments` are the SDKs' own: they repeat what stands beside."""


def parse_messages(value: Any) -> tuple[ChatMessage, ...]:
    """The conversation.

    Raises:
        PermanentError: a part of it is missing, unknown or not supported; the error names it.
    """
    if value is None:
        raise missing("messages")
    if not isinstance(value, list):
        raise wrong_type("messages", "a list of messages")
    turns: list[ChatMessage] = []
    called: set[str] = set()
    for index, item in enumerate(value):
        turns += _turns(item, f"messages[{index}]", called)
    return tuple(turns)


def _turns(item: Any, where: str, called: set[str]) -> list[ChatMessage]:
    if not isinstance(item, dict):
        raise wrong_type(where, "a message object")
    role = item.get("role")
    if not isinstance(role, str) or role not in _FIELDS:
        raise wrong_value(f"{where}.role", f"one of {', '.join(_FIELDS)}")
    for name in _NOT_SERVED:
        if item.get(name) not in (None, []):
            raise unsupported(f"{where}.{name}", item[name], "leave it out")
    refuse_unknown(item, _FIELDS[role].union(_NOT_SERVED), where)
    if role == "assistant":
        return _assistant(item, where, called)
    if role == "tool":
        _require_call(item.get("tool_call_id"), f"{where}.tool_call_id", called)
        return [ChatMessage(role="tool", content=_content(item, where))]
    return [ChatMessage(role=cast("_Role", role), content=_content(item, where))]


def _content(item: dict[str, Any], where: str) -> str:
    return text_of(item.get("content"), f"{where}.content", _TEXT)


def _assistant(item: dict[str, Any], where: str, called: set[str]) -> list[ChatMessage]:
    calls = item.get("tool_calls") or []
    if not isinstance(calls, list):
        raise wrong_type(f"{where}.tool_calls", "a list of calls")
    texts = [] if calls and item.get("content") is None else [_content(item, where)]
    texts += [
        _arguments(call, f"{where}.tool_calls[{index}]", called) for index, call in enumerate(calls)
    ]
    return [ChatMessage(role="assistant", content=text) for text in texts]


def _arguments(call: Any, where: str, called: set[str]) -> str:
    if not isinstance(call, dict):
        raise wrong_type(where, "a call")
    if call.get("type") != "function":
        raise unsupported(f"{where}.type", call.get("type"), "tools are functions")
    refuse_unknown(call, _CALL_FIELDS, where)
    call_id, function = call.get("id"), call.get("function")
    if not isinstance(call_id, str):
        raise wrong_type(f"{where}.id", "a string")
    if not isinstance(function, dict):
        raise wrong_type(f"{where}.function", "an object")
    refuse_unknown(function, _FUNCTION_FIELDS, f"{where}.function")
    for name in ("name", "arguments"):
        if not isinstance(function.get(name), str):
            raise wrong_type(f"{where}.function.{name}", "a string")
    called.add(call_id)
    return str(function["arguments"])


def _require_call(call_id: Any, where: str, called: set[str]) -> None:
    if call_id is None:
        raise missing(where)
    if not isinstance(call_id, str) or call_id not in called:
        raise wrong_value(where, "the id of a call in an earlier message's 'tool_calls'")
