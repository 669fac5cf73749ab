"""The `input` parameter: a text, or a list of messages. By hand, for errors that say where."""

from __future__ import annotations

from typing import Any, Final, Literal, cast

from penstock_realtime.domain.parameters import (
    missing,
    refuse_unknown,
    unsupported,
    wrong_type,
    wrong_value,
)
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.requests import ChatMessage

_Role = Literal["system", "developer", "user", "assistant"]
_ROLES: Final = ("system", "developer", "user", "assistant")
_MESSAGE_FIELDS: Final = frozenset({"type", "role", "content", "id", "status", "phase"})
_TEXT_PARTS: Final = {
    "input_text": frozenset({"type", "text"}),
    "output_text": frozenset({"type", "text", "annotations", "logprobs"}),
}


def parse_input(value: Any) -> str | tuple[ChatMessage, ...]:
    """The conversation's own messages.

    Raises:
        PermanentError: a part of it is missing, unknown or not supported; the error names it.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise missing("input")
    if not isinstance(value, list):
        raise wrong_type("input", "a string or a list of messages")
    return tuple(_message(item, f"input[{index}]") for index, item in enumerate(value))


def _message(item: Any, where: str) -> ChatMessage:
    if not isinstance(item, dict):
        raise wrong_type(where, "a message object")
    if item.get("type", "message") not in ("message", None):  # a client may send what has no hash
        raise _unsupported(f"{where}.type", item["type"])
    refuse_unknown(item, _MESSAGE_FIELDS, where)
    role = item.get("role")
    if role not in _ROLES:
        raise wrong_value(f"{where}.role", f"one of {', '.join(_ROLES)}")
    text = _text(item.get("content"), f"{where}.content")
    return ChatMessage(role=cast("_Role", role), content=text)


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong_type(where, "a string or a list of parts")
    return "".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        raise wrong_type(where, "a content part")
    kind = part.get("type")
    fields = _TEXT_PARTS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise _unsupported(f"{where}.type", kind)
    refuse_unknown(part, fields, where)
    text = part.get("text")
    if not isinstance(text, str):
        raise wrong_type(f"{where}.text", "a string")
    return text


def _unsupported(param: str, value: Any) -> PermanentError:
    return unsupported(param, value, "this platform answers text with text")
