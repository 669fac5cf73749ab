"""`tools` and `tool_choice` of the Responses API: which functions may, or must, be called."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from penstock_realtime.domain.parameters import (
    invalid,
    missing,
    refuse_unknown,
    unsupported,
    wrong_type,
    wrong_value,
)
from penstock_shared.contracts.output_schema import refuse_unwieldy_schema
from penstock_shared.contracts.requests import MAX_TOOLS, FunctionName, Tool

_OWN_ONLY: Final = "this platform calls functions of your own and no others"
_HOSTED: Final = ("allowed_callers", "async", "defer_loading", "output_schema")
"""Fields of a function that ask for what only the vendor's own tools do."""


class FunctionChoice(NamedTuple):
    """What an answer may be, besides a message."""

    tools: tuple[Tool, ...] = ()
    """The functions that may be called."""
    must_call: bool = False


class Function(BaseModel):
    """A function as the client defines it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: Literal["function"] = "function"
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def tool(self) -> Tool:
        """As the worker gets it."""
        return Tool(name=self.name, description=self.description, parameters=self.parameters)

    def echo(self) -> dict[str, Any]:
        """As the response object gives it back. Arguments always satisfy their schema."""
        return self.model_dump() | {"strict": self.strict is not False}


def parse_functions(value: Any) -> tuple[Function, ...]:
    """The `tools` of a request.

    Raises:
        PermanentError: one of them is wrong, or no function; the error names it.
        SchemaError: a schema is over a limit.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise wrong_type("tools", "a list of functions")
    if len(value) > MAX_TOOLS:
        raise wrong_value("tools", f"at most {MAX_TOOLS} functions")
    functions = tuple(_listed(item, f"tools[{index}]") for index, item in enumerate(value))
    refuse_repeated(functions)
    return functions


def refuse_repeated(functions: Collection[Function], field: str = "name") -> None:
    """Refuse two functions of one name: nobody could say which was called.

    Raises:
        PermanentError: there are two; `field` is where the second's name stood in it.
    """
    names: set[str] = set()
    for index, function in enumerate(functions):
        if function.name in names:
            raise wrong_value(f"tools[{index}].{field}", "a name that no other function has")
        names.add(function.name)


def _listed(item: Any, where: str) -> Function:
    if not isinstance(item, dict):
        raise wrong_type(where, "a function")
    if "type" not in item:
        raise missing(f"{where}.type")
    if item["type"] != "function":
        raise unsupported(f"{where}.type", item["type"], _OWN_ONLY)
    return parse_function(item, where)


def parse_function(given: Mapping[str, Any], where: str) -> Function:
    """One function's definition, which stood at `where`.

    Raises:
        PermanentError: it is none; the error names the field.
        SchemaError: its schema is over a limit.
    """
    for name in _HOSTED:
        if given.get(name):
            raise unsupported(f"{where}.{name}", given[name], _OWN_ONLY)
    try:
        function = Function.model_validate({k: v for k, v in given.items() if k not in _HOSTED})
    except ValidationError as error:
        raise invalid(error, where) from error
    schema, param = function.parameters, f"{where}.parameters"
    if schema is not None and schema.get("type", "object") != "object":
        raise wrong_value(f"{param}.type", "'object': arguments are a JSON object")
    refuse_unwieldy_schema(schema, param)
    return function


def choose(functions: Collection[Function], choice: Any) -> FunctionChoice:
    """What `tool_choice` leaves of the functions.

    Raises:
        PermanentError: it is none of the API's choices, or names a function that is not there.
    """
    tools = tuple(function.tool() for function in functions)
    if choice in (None, "auto"):
        return FunctionChoice(tools)
    if choice == "none":
        return FunctionChoice()
    if choice == "required":
        return _required(tools)
    if not isinstance(choice, dict):
        raise wrong_value("tool_choice", "'none', 'auto', 'required' or an object")
    kind = choice.get("type")
    if kind == "function":
        refuse_unknown(choice, {"type", "name"}, "tool_choice")
        return FunctionChoice((_named(tools, choice, "tool_choice"),), must_call=True)
    if kind == "allowed_tools":
        return _allowed(tools, choice)
    raise unsupported("tool_choice.type", kind, _OWN_ONLY)


def _required(tools: tuple[Tool, ...]) -> FunctionChoice:
    if not tools:
        raise wrong_value("tool_choice", "'tools' to choose from, or another choice")
    return FunctionChoice(tools, must_call=True)


def _named(tools: tuple[Tool, ...], reference: Mapping[str, Any], where: str) -> Tool:
    for tool in tools:
        if tool.name == reference.get("name"):
            return tool
    raise wrong_value(f"{where}.name", "the name of a function in 'tools'")


def _allowed(tools: tuple[Tool, ...], choice: Mapping[str, Any]) -> FunctionChoice:
    refuse_unknown(choice, {"type", "mode", "tools"}, "tool_choice")
    if choice.get("mode") not in ("auto", "required"):
        raise wrong_value("tool_choice.mode", "'auto' or 'required'")
    listed = choice.get("tools")
    if not isinstance(listed, list) or not listed:
        raise wrong_type("tool_choice.tools", "a list of functions' names")
    allowed = [_reference(tools, one, f"tool_choice.tools[{n}]") for n, one in enumerate(listed)]
    kept = tuple(tool for tool in tools if tool in allowed)
    return FunctionChoice(kept, must_call=choice["mode"] == "required")


def _reference(tools: tuple[Tool, ...], reference: Any, where: str) -> Tool:
    if not isinstance(reference, dict):
        raise wrong_type(where, "a function's name as an object")
    if reference.get("type") != "function":
        raise unsupported(f"{where}.type", reference.get("type"), _OWN_ONLY)
    refuse_unknown(reference, {"type", "name"}, where)
    return _named(tools, reference, where)
