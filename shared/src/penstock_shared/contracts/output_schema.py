"""What a client's JSON Schema may weigh before anybody works on it."""

from __future__ import annotations

import json
from typing import Any, Final

from penstock_shared.contracts.errors import SchemaError

MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_SCHEMA_DEPTH: Final = 32


def refuse_unwieldy_schema(schema: dict[str, Any] | None, param: str) -> None:
    """Refuse a schema that is nested too deeply or too large; `param` is where it stood.

    Whether it is a JSON Schema at all is for the worker to say, which applies it.

    Raises:
        SchemaError: it is over one of the limits.
    """
    if schema is None:
        return
    if _depth(schema) > MAX_SCHEMA_DEPTH:
        msg = f"The schema is nested deeper than {MAX_SCHEMA_DEPTH} levels: flatten it."
        raise SchemaError(msg, code="schema_too_deep", param=param)
    size = len(json.dumps(schema, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    if size > MAX_SCHEMA_BYTES:
        msg = f"The schema has {size} bytes, {MAX_SCHEMA_BYTES} are allowed: shorten it."
        raise SchemaError(msg, code="schema_too_large", param=param)


def _depth(schema: dict[str, Any]) -> int:
    """Levels of objects and lists, counted without recursion and not far past the limit."""
    depth = 0
    level: list[Any] = [schema]
    while level and depth <= MAX_SCHEMA_DEPTH:
        depth += 1
        children = [child for node in level for child in _children(node)]
        level = [child for child in children if isinstance(child, dict | list)]
    return depth


def _children(node: Any) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else list(node)
