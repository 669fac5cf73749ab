"""What a request may say: read from its body, held against Stripe's own description.

The `stripe` package carries the API's OpenAPI description as typed dictionaries, one for each
endpoint. They are the rule here, so that an unknown name, a missing one, a wrong type and an
unknown value of an enumeration are refused as Stripe refuses them
(https://docs.stripe.com/error-codes: `parameter_unknown`, `parameter_missing`,
`parameter_invalid_integer`, `parameter_invalid_empty`).
"""

from __future__ import annotations

import functools
import re
import types
import typing
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import parse_qsl

import typing_extensions
from stripe._request_options import RequestOptions
from stripe._stripe_object import UntypedStripeObject
from tests.support.stripe_fake.failures import Failure, invalid

type_of = typing_extensions.get_origin
_SEGMENT: Final = re.compile(r"\[([^\]]*)\]")
_INTEGER: Final = re.compile(r"-?\d+\Z")
_HEADERS: Final = frozenset(RequestOptions.__annotations__)
"""The package's own options (key, version, ...) travel as headers."""
_UNIMPORTED: Final = {"StripeContext": object, "Mapping": typing.Mapping}
"""Names that the package imports for type checkers alone."""


def decode_form(text: str) -> dict[str, Any]:
    """`a[b]=1&c[0]=2` as nested dictionaries; a list stays a dictionary of its positions."""
    tree: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        path = [name.split("[", 1)[0], *_SEGMENT.findall(name)]
        node = tree
        for step in path[:-1]:
            below = node.setdefault(step or str(len(node)), {})
            if not isinstance(below, dict):
                raise invalid(f"Invalid hash: {name}", param=name)
            node = below
        node[path[-1] or str(len(node))] = value
    return tree


def checked(description: type, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters with their types, or the refusal that Stripe would give."""
    return _Reader(form=True).mapping(description, given, "")


def checked_json(description: type, given: dict[str, Any]) -> dict[str, Any]:
    """The same for v2's JSON, whose numbers already are numbers."""
    return _Reader(form=False).mapping(description, given, "")


@functools.cache
def _fields(description: type) -> dict[str, tuple[Any, bool]]:
    """Name, type and whether it is required."""
    hints = typing_extensions.get_type_hints(description, localns=_UNIMPORTED)
    required: frozenset[str] = description.__required_keys__  # type: ignore[attr-defined]
    own = hints.keys() - (_HEADERS if hints.keys() >= _HEADERS else frozenset())
    return {name: (hints[name], name in required) for name in own}


class _Reader:
    def __init__(self, *, form: bool) -> None:
        self._form = form

    def mapping(self, description: type, given: dict[str, Any], where: str) -> dict[str, Any]:
        fields = _fields(description)
        for name in given:
            if name not in fields:
                path = _join(where, name)
                message = f"Received unknown parameter: {path}"
                raise invalid(message, code="parameter_unknown", param=path)
        for name, (_, required) in fields.items():
            if required and name not in given:
                path = _join(where, name)
                message = f"Missing required param: {path}."
                raise invalid(message, code="parameter_missing", param=path)
        return {
            name: self.value(fields[name][0], value, _join(where, name))
            for name, value in given.items()
        }

    def value(self, kind: Any, given: Any, where: str) -> Any:
        origin = type_of(kind)
        if origin in {typing.Union, types.UnionType}:
            return self._any_of(typing_extensions.get_args(kind), given, where)
        if origin is typing.Literal or origin is typing_extensions.Literal:
            return _one_of(typing_extensions.get_args(kind), given, where)
        if origin is list:
            return self._list(typing_extensions.get_args(kind)[0], given, where)
        if origin in {dict, UntypedStripeObject}:
            return self._free_mapping(given, where)
        if typing_extensions.is_typeddict(kind):
            if not isinstance(given, dict):
                raise invalid("Invalid object", param=where)
            return self.mapping(kind, given, where)
        return self._scalar(kind, given, where)

    def _any_of(self, kinds: tuple[Any, ...], given: Any, where: str) -> Any:
        # `Literal[...] | str` is how the package writes an enumeration that may grow; the server
        # knows its values. `Literal[""] | ...` unsets.
        values = [_values(kind) for kind in kinds]
        if any(value != ("",) for value in values if value):
            kinds = tuple(kind for kind in kinds if kind is not str)
        refusal: Failure | None = None
        for kind in sorted(kinds, key=lambda kind: kind is str):
            try:
                return self.value(kind, given, where)
            except Failure as failure:
                refusal = refusal if refusal and _values(kind) == ("",) else failure
        raise refusal or invalid("Invalid value", param=where)

    def _list(self, kind: Any, given: Any, where: str) -> list[Any]:
        items = list(given.values()) if self._form and isinstance(given, dict) else given
        if not isinstance(items, list):
            raise invalid("Invalid array", param=where)
        return [self.value(kind, item, f"{where}[{n}]") for n, item in enumerate(items)]

    def _free_mapping(self, given: Any, where: str) -> dict[str, str]:
        if not isinstance(given, dict):
            raise invalid("Invalid object", param=where)
        for name, value in given.items():
            if not isinstance(value, str):
                raise invalid(f"Invalid string: {value}", param=_join(where, name))
        return given

    def _scalar(self, kind: Any, given: Any, where: str) -> Any:
        if isinstance(given, dict | list):
            raise invalid("Invalid string: expected a single value", param=where)
        if given == "":
            message = f"You passed an empty string for '{where}'. We assume empty values are an "
            message += f"attempt to unset a parameter; however '{where}' cannot be unset."
            raise invalid(message, code="parameter_invalid_empty", param=where)
        if kind is int:
            return _integer(given, where, form=self._form)
        if kind is bool:
            return _one_of(("true", "false"), given, where) == "true" if self._form else given
        if kind in {float, Decimal}:
            return _decimal(given, where)
        return given


def _values(kind: Any) -> tuple[Any, ...]:
    return typing_extensions.get_args(kind) if type_of(kind) is typing.Literal else ()


def _join(where: str, name: str) -> str:
    return f"{where}[{name}]" if where else name


def _one_of(values: tuple[Any, ...], given: Any, where: str) -> Any:
    if given in values:
        return given
    *firsts, last = [str(value) for value in values]
    listed = f"one of {', '.join(firsts)}, or {last}" if firsts else last
    raise invalid(f"Invalid {where}: must be {listed}", param=where)


def _integer(given: Any, where: str, *, form: bool) -> int:
    if form and isinstance(given, str) and _INTEGER.match(given):
        return int(given)
    if not form and isinstance(given, int) and not isinstance(given, bool):
        return given
    raise invalid(f"Invalid integer: {given}", code="parameter_invalid_integer", param=where)


def _decimal(given: Any, where: str) -> str:
    try:
        return str(Decimal(str(given)))
    except InvalidOperation:
        raise invalid(f"Invalid decimal: {given}", param=where) from None
