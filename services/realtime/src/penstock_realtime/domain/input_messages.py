"""The `input` parameter: a text, or a list of messages. By hand, for errors that say where."""

from __future__ import annotations

from typing import Any, Final, Literal, cast

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
        msg = "Missing required parameter: 'input'."
        raise PermanentError(msg, code="missing_required_parameter", param="input")
    if not isinstance(value, list):
        raise _wrong_type("input", "a string or a list of messages")
    return tuple(_message(item, f"input[{index}]") for index, item in enumerate(value))


def _message(item: Any, where: str) -> ChatMessage:
    if not isinstance(item, dict):
        raise _wrong_type(where, "a message object")
    if item.get("type", "message") not in {"message", None}:
        raise _unsupported(f"{where}.type", item["type"])
    _refuse_unknown(item, _MESSAGE_FIELDS, where)
    role = item.get("role")
    if role not in _ROLES:
        msg = f"Invalid value for '{where}.role': expected one of {', '.join(_ROLES)}."
        raise PermanentError(msg, code="invalid_value", param=f"{where}.role")
    text = _text(item.get("content"), f"{where}.content")
    return ChatMessage(role=cast("_Role", role), content=text)


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong_type(where, "a string or a list of parts")
    return "".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        raise _wrong_type(where, "a content part")
    kind = part.get("type")
    fields = _TEXT_PARTS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise _unsupported(f"{where}.type", kind)
    _refuse_unknown(part, fields, where)
    text = part.get("text")
    if not isinstance(text, str):
        raise _wrong_type(f"{where}.text", "a string")
    return text


def _refuse_unknown(given: dict[str, Any], known: frozenset[str], where: str) -> None:
    for name in given:
        if name not in known:
            param = f"{where}.{name[:80]}"
            msg = f"Unknown parameter: '{param}'."
            raise PermanentError(msg, code="unknown_parameter", param=param)


def _wrong_type(param: str, expected: str) -> PermanentError:
    return PermanentError(
        f"Invalid type for '{param}': expected {expected}.", code="invalid_type", param=param
    )


def _unsupported(param: str, value: Any) -> PermanentError:
    shown = repr(value)[:80]
    msg = f"'{param}' {shown} is not supported: this platform answers text with text."
    return PermanentError(msg, code="unsupported_parameter", param=param)
