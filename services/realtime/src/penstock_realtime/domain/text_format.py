"""What form the answer must have: text, some JSON object, or JSON of a given schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock_realtime.domain.parameters import (
    invalid,
    refuse_unknown,
    unsupported,
    wrong_type,
)
from penstock_shared.contracts.output_schema import refuse_unwieldy_schema
from penstock_shared.contracts.requests import FunctionName

ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}
"""The schema of `json_object`."""
_PLAIN: Final[dict[str, Any]] = {"type": "text"}


class JsonSchemaFormat(BaseModel):
    """A schema that the answer must satisfy, as the client gives it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: Literal["json_schema"] = "json_schema"
    name: FunctionName
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None
    """Echoed only: an answer is checked either way."""


def parse_json_schema(given: Mapping[str, Any], where: str) -> JsonSchemaFormat:
    """A schema with its name, which stood at `where`.

    Raises:
        PermanentError: it is none; the error names the field.
        SchemaError: the schema is over a limit.
    """
    try:
        found = JsonSchemaFormat.model_validate(given)
    except ValidationError as error:
        raise invalid(error, where) from error
    refuse_unwieldy_schema(found.schema_, f"{where}.schema")
    return found


def parse_text(value: Any) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The `text` parameter: the answer's schema, and what the response object gives back.

    Raises:
        PermanentError: it is wrong, or asks for what is not served; the error names the field.
        SchemaError: the schema is over a limit.
    """
    if value is None:
        return None, None
    if not isinstance(value, dict):
        raise wrong_type("text", "an object")
    refuse_unknown(value, {"format", "verbosity"}, "text")
    if value.get("verbosity") not in (None, "medium"):
        raise unsupported("text.verbosity", value["verbosity"], "answers have one length")
    schema, shown = _format(value.get("format"), "text.format")
    return schema, {"format": shown, "verbosity": "medium"}


def _format(given: Any, where: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    if given is None:
        return None, _PLAIN
    if not isinstance(given, dict):
        raise wrong_type(where, "an object")
    kind = given.get("type")
    if kind == "json_schema":
        asked = parse_json_schema(given, where)
        return asked.schema_, asked.model_dump(by_alias=True)
    if kind not in ("text", "json_object"):
        raise unsupported(f"{where}.type", kind, "use text, json_object or json_schema")
    refuse_unknown(given, {"type"}, where)
    return (ANY_OBJECT if kind == "json_object" else None), dict(given)
