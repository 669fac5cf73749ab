"""Braintree's XML: dashes in names, types as attributes, `nil` for nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

Members = dict[str, Any]


def to_xml(name: str, value: Any) -> str:
    """One element."""
    tag = name.replace("_", "-")
    if value is None:
        return f'<{tag} nil="true"></{tag}>'
    if isinstance(value, bool):
        return f'<{tag} type="boolean">{str(value).lower()}</{tag}>'
    if isinstance(value, int):
        return f'<{tag} type="integer">{value}</{tag}>'
    if isinstance(value, datetime):
        moment = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f'<{tag} type="datetime">{moment}</{tag}>'
    if isinstance(value, list):
        return f'<{tag} type="array">{"".join(to_xml("item", one) for one in value)}</{tag}>'
    if isinstance(value, dict):
        return f"<{tag}>{''.join(to_xml(key, one) for key, one in value.items())}</{tag}>"
    return f"<{tag}>{escape(str(value))}</{tag}>"
