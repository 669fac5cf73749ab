"""Judging the parameters of a body, whichever API it belongs to: every error names the field.

Three kinds of names are told apart: served, known to OpenAI's API but not served
(`unsupported_parameter`), and unknown (`unknown_parameter`). A field that is not served may
still be sent with the value that asks for nothing, as SDKs and frameworks do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias

from pydantic import Field, StringConstraints
from pydantic_core import from_json

from penstock_shared.contracts import complaints
from penstock_shared.contracts.errors import PermanentError

Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""Of a model, known or not."""
Metadata: TypeAlias = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]
"""The vendor's bounds."""
_SHOWN: Final = 80
"""How many characters of a client's own text an error repeats."""
invalid = complaints.invalid
missing = complaints.missing
unknown = complaints.unknown


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        PermanentError: it is none.
    """
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise complaints.not_json(error) from error
    if not isinstance(value, dict):
        msg = "The body must be a JSON object."
        raise PermanentError(msg, code="invalid_json")
    return value


@dataclass(frozen=True, slots=True)
class Parameters:
    """The names that one endpoint knows."""

    served: Collection[str]
    asks_for_nothing: Mapping[str, tuple[Any, ...]]
    """Parameters that are not served, and the values by which they are not used."""
    unsupported: Collection[str] = ()
    """More that are not served, whatever their value; null is always nothing."""

    def served_of(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What is served of a body.

        Raises:
            PermanentError: another parameter is used, or is unknown.
        """
        return {name: value for name, value in given.items() if self._is_served(name, value)}

    def _is_served(self, name: str, value: Any) -> bool:
        if name in self.served:
            return True
        if name not in self.unsupported and name not in self.asks_for_nothing:
            raise unknown(name)
        if value is not None and not any(
            _same(value, nothing) for nothing in self.asks_for_nothing.get(name, ())
        ):
            msg = f"'{name}' is not supported with this value: leave it out."
            raise PermanentError(msg, code="unsupported_parameter", param=name)
        return False


def refuse_unknown(given: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse fields of an object that nobody knows.

    Raises:
        PermanentError: there is one.
    """
    for name in given:
        if name not in known:
            raise unknown(f"{where}.{name[:_SHOWN]}")


def wrong_type(param: str, expected: str) -> PermanentError:
    """A value of another type than `expected` says."""
    msg = f"Invalid type for '{param}': expected {expected}."
    return PermanentError(msg, code="invalid_type", param=param)


def wrong_value(param: str, expected: str) -> PermanentError:
    """A value of the right type that is none of those which `expected` says."""
    msg = f"Invalid value for '{param}': expected {expected}."
    return PermanentError(msg, code="invalid_value", param=param)


def unsupported(param: str, value: Any, why: str) -> PermanentError:
    """Something that OpenAI's API has and this platform has not."""
    msg = f"'{param}' {repr(value)[:_SHOWN]} is not supported: {why}."
    return PermanentError(msg, code="unsupported_parameter", param=param)


def _same(value: Any, expected: Any) -> bool:
    return type(value) is type(expected) and value == expected  # 0 is not False
