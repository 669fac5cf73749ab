"""`tools`, `tool_choice` and `response_format` of a chat completion.

The same as in the Responses API, one level deeper: what stands there beside `type` stands here in
an object of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from penstock_realtime.domain.function_tools import (
    Function,
    FunctionChoice,
    choose,
    parse_function,
    refuse_repeated,
)
from penstock_realtime.domain.parameters import (
    missing,
    refuse_unknown,
    unsupported,
    wrong_type,
    wrong_value,
)
from penstock_realtime.domain.text_format import ANY_OBJECT, parse_json_schema
from penstock_shared.contracts.requests import MAX_TOOLS

_OWN_ONLY: Final = "tools are functions of your own"


def parse_tools(value: Any, choice: Any) -> FunctionChoice:
    """Which functions may, or must, be called.

    Raises:
        PermanentError: a tool or the choice is wrong, or not supported; the error names it.
        SchemaError: a schema is over a limit.
    """
    if value is not None and not isinstance(value, list):
        raise wrong_type("tools", "a list of tools")
    tools = value or []
    if len(tools) > MAX_TOOLS:
        raise wrong_value("tools", f"at most {MAX_TOOLS} functions")
    functions = [_function(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    refuse_repeated(functions, "function.name")
    return choose(functions, _flat_choice(choice, {function.name for function in functions}))


def parse_response_format(value: Any) -> dict[str, Any] | None:
    """The JSON Schema that the answer must satisfy; None for text.

    Raises:
        PermanentError: it is none of the API's formats; the error names the field.
        SchemaError: the schema is over a limit.
    """
    if value is None:
        return None
    where = "response_format"
    if not isinstance(value, dict):
        raise wrong_type(where, "an object")
    kind = value.get("type")
    if kind == "json_schema":
        return parse_json_schema(
            _inner(value, "json_schema", where), f"{where}.json_schema"
        ).schema_
    if kind not in ("text", "json_object"):
        raise unsupported(f"{where}.type", kind, "use text, json_object or json_schema")
    refuse_unknown(value, {"type"}, where)
    return ANY_OBJECT if kind == "json_object" else None


def _function(tool: Any, where: str) -> Function:
    if not isinstance(tool, dict):
        raise wrong_type(where, "a tool")
    if tool.get("type") != "function":
        raise unsupported(f"{where}.type", tool.get("type"), _OWN_ONLY)
    return parse_function(_inner(tool, "function", where), f"{where}.function")


def _flat_choice(choice: Any, names: Collection[str]) -> Any:
    """As the Responses API has it; every name in it is one of `names`."""
    if not isinstance(choice, dict):
        return choice
    kind = choice.get("type")
    if kind == "function":
        return _flat_reference(choice, "tool_choice", names)
    if kind != "allowed_tools":
        raise unsupported("tool_choice.type", kind, _OWN_ONLY)
    where = "tool_choice.allowed_tools"
    allowed = _inner(choice, "allowed_tools", "tool_choice")
    refuse_unknown(allowed, {"mode", "tools"}, where)
    if allowed.get("mode") not in ("auto", "required"):
        raise wrong_value(f"{where}.mode", "'auto' or 'required'")
    listed = allowed.get("tools")
    if not isinstance(listed, list) or not listed:
        raise wrong_type(f"{where}.tools", "a list of functions' names")
    flat = [_flat_reference(one, f"{where}.tools[{n}]", names) for n, one in enumerate(listed)]
    return {"type": kind, "mode": allowed["mode"], "tools": flat}


def _flat_reference(reference: Any, where: str, names: Collection[str]) -> dict[str, Any]:
    if not isinstance(reference, dict):
        raise wrong_type(where, "a function's name as an object")
    if reference.get("type") != "function":
        raise unsupported(f"{where}.type", reference.get("type"), _OWN_ONLY)
    function = _inner(reference, "function", where)
    refuse_unknown(function, {"name"}, f"{where}.function")
    name = function.get("name")
    if not isinstance(name, str) or name not in names:
        raise wrong_value(f"{where}.function.name", "the name of a function in 'tools'")
    return {"type": "function", "name": name}


def _inner(outer: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    refuse_unknown(outer, {"type", name}, where)
    inner = outer.get(name)
    if inner is None:
        raise missing(f"{where}.{name}")
    if not isinstance(inner, dict):
        raise wrong_type(f"{where}.{name}", "an object")
    return inner
