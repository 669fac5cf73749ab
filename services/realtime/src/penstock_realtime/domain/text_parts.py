"""The `content` of a message, in whichever API: a text, or a list of text parts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from penstock_realtime.domain.parameters import refuse_unknown, unsupported, wrong_type

Kinds = Mapping[str, Collection[str]]
"""The part types that are served, and which fields they may have; the text stands in `text`."""


def text_of(content: Any, where: str, kinds: Kinds) -> str:
    """The whole text; parts are joined without anything in between.

    Raises:
        PermanentError: it is neither, or a part is of another type; `where` leads to it.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong_type(where, "a string or a list of parts")
    return "".join(_part(part, f"{where}[{index}]", kinds) for index, part in enumerate(content))


def _part(part: Any, where: str, kinds: Kinds) -> str:
    if not isinstance(part, dict):
        raise wrong_type(where, "a content part")
    kind = part.get("type")
    fields = kinds.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise unsupported(f"{where}.type", kind, "this platform answers text with text")
    refuse_unknown(part, fields, where)
    text = part.get("text")
    if not isinstance(text, str):
        raise wrong_type(f"{where}.text", "a string")
    return text
