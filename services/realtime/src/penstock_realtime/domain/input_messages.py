"""The `input` parameter: a text, or a list of items. By hand, for errors that say where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, cast

from penstock_realtime.domain.parameters import (
    missing,
    refuse_unknown,
    unsupported,
    wrong_type,
    wrong_value,
)
from penstock_realtime.domain.text_parts import Kinds, text_of
from penstock_shared.contracts.requests import ChatMessage

_Role = Literal["system", "developer", "user", "assistant"]
_ROLES: Final = ("system", "developer", "user", "assistant")
_STATES: Final = ("in_progress", "completed", "incomplete")
_MESSAGE_FIELDS: Final = frozenset({"type", "role", "content", "id", "status", "phase"})
_NOT_SERVED: Final = frozenset({"async", "async_", "caller", "created_by", "namespace"})
"""What the SDKs' own objects carry along as null when they are dumped whole."""
_CALL_FIELDS: Final = frozenset({
    "type", "id", "call_id", "name", "arguments", "parsed_arguments", "status"
})  # fmt: skip
_OUTPUT_FIELDS: Final = frozenset({"type", "id", "call_id", "name", "output", "status"})
"""`parsed_arguments`, and `parsed` of a text, are the SDKs' own: they repeat what is beside."""
_TEXT_PARTS: Final[Kinds] = {
    "input_text": frozenset({"type", "text"}),
    "output_text": frozenset({"type", "text", "annotations", "logprobs", "parsed"}),
}


class Items(NamedTuple):
    """What was said, in order."""

    turns: tuple[ChatMessage, ...]
    answered: Mapping[str, str] = {}
    """Outputs of calls that are not among the items: call id to where the output stood."""


def parse_input(value: Any) -> Items:
    """The conversation's own messages, calls and outputs.

    Raises:
        PermanentError: a part of it is missing, unknown or not supported; the error names it.
    """
    if isinstance(value, str):
        return Items((ChatMessage(role="user", content=value),))
    if value is None:
        raise missing("input")
    if not isinstance(value, list):
        raise wrong_type("input", "a string or a list of items")
    turns: list[ChatMessage] = []
    called: set[str] = set()
    answered: dict[str, str] = {}
    for index, item in enumerate(value):
        where = f"input[{index}]"
        if not isinstance(item, dict):
            raise wrong_type(where, "an item object")
        kind = item.get("type") or "message"
        if kind == "message":
            turns.append(_message(item, where))
        elif kind == "function_call":
            turns.append(_call(item, where))
            called.add(item["call_id"])
        elif kind == "function_call_output":
            turns.append(_output(item, where))
            if item["call_id"] not in called:
                answered[item["call_id"]] = f"{where}.call_id"
        else:
            raise unsupported(f"{where}.type", kind, "send messages, calls and their outputs")
    return Items(tuple(turns), answered)


def _message(item: dict[str, Any], where: str) -> ChatMessage:
    refuse_unknown(item, _MESSAGE_FIELDS, where)
    role = item.get("role")
    if role not in _ROLES:
        raise wrong_value(f"{where}.role", f"one of {', '.join(_ROLES)}")
    text = text_of(item.get("content"), f"{where}.content", _TEXT_PARTS)
    return ChatMessage(role=cast("_Role", role), content=text)


def _call(item: dict[str, Any], where: str) -> ChatMessage:
    """An earlier call, as the model answered it: its arguments."""
    _refuse_others(item, _CALL_FIELDS, where)
    for name in ("call_id", "name", "arguments"):
        _require_text(item, name, where)
    _refuse_strange_state(item, where)
    return ChatMessage(role="assistant", content=item["arguments"])


def _output(item: dict[str, Any], where: str) -> ChatMessage:
    _refuse_others(item, _OUTPUT_FIELDS, where)
    _require_text(item, "call_id", where)
    _refuse_strange_state(item, where)
    output = text_of(item.get("output"), f"{where}.output", _TEXT_PARTS)
    return ChatMessage(role="tool", content=output)


def _refuse_others(item: dict[str, Any], served: frozenset[str], where: str) -> None:
    for name in _NOT_SERVED:
        if item.get(name) is not None:
            raise unsupported(f"{where}.{name}", item[name], "leave it out")
    refuse_unknown(item, served | _NOT_SERVED, where)


def _require_text(item: dict[str, Any], name: str, where: str) -> None:
    if item.get(name) is None:
        raise missing(f"{where}.{name}")
    if not isinstance(item[name], str):
        raise wrong_type(f"{where}.{name}", "a string")


def _refuse_strange_state(item: dict[str, Any], where: str) -> None:
    if item.get("status") not in (None, *_STATES):
        raise wrong_value(f"{where}.status", f"one of {', '.join(_STATES)}")
