"""Braintree's XML: dashes in names, types as attributes, `nil` for nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

Members = dict[str, Any]


def to_xml(name: str, value: Any) -> str:
    """One element."""
    tag = name.replace("_", "-")
    attribute, content = _content(value)
    return f"<{tag}{attribute}>{content}</{tag}>"


def _content(value: Any) -> tuple[str, str]:
    """The attribute and what stands inside."""
    match value:
        case None:
            return ' nil="true"', ""
        case bool():
            found = "boolean", str(value).lower()
        case int():
            found = "integer", str(value)
        case datetime():
            found = "datetime", value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case list():
            found = "array", "".join(to_xml("item", one) for one in value)
        case dict():
            return "", "".join(to_xml(key, one) for key, one in value.items())
        case _:
            return "", escape(str(value))
    return f' type="{found[0]}"', found[1]
