"""JSON Schemas of pydantic models, with what they share in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from penstock_realtime.domain.parameters import Parameters

Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]
_PLACE: Final = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class Body:
    """A request body whose parameters are judged one by one (domain/parameters.py)."""

    name: str
    scalars: type[BaseModel]
    parsed_apart: type[BaseModel]
    parameters: Parameters


class _Untitled(GenerateJsonSchema):
    """Titles would repeat the names; AsyncAPI has another `discriminator` than OpenAPI."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def tagged_union_schema(self, schema: Any) -> Schema:
        return {k: v for k, v in super().tagged_union_schema(schema).items() if k == "oneOf"}


class Schemas:
    """Collects the schemas that a document's `components` hold, under a prefix of their own."""

    def __init__(self, prefix: str = "") -> None:
        self._place = f"{_PLACE}{prefix}"
        self._prefix = prefix
        self.named: dict[str, Schema] = {}

    def of(self, described: Any, mode: Mode = "validation") -> Schema:
        """The schema of any type; what it refers to is collected."""
        schema = TypeAdapter(described).json_schema(
            ref_template=self._place + "{model}", mode=mode, schema_generator=_Untitled
        )
        for name, part in schema.pop("$defs", {}).items():
            self._add(name, part)
        return schema

    def ref(self, model: type[BaseModel], mode: Mode = "validation") -> Schema:
        """A reference to a model's schema."""
        self._add(model.__name__, self.of(model, mode))
        return {"$ref": self._place + model.__name__}

    def body(self, body: Body) -> Schema:
        """A reference to a request body: what is served, and what may be sent but asks for nothing.

        Raises:
            ValueError: the models do not have the very parameters that are served.
        """
        plain, structured = self.of(body.scalars), self.of(body.parsed_apart)
        properties = {**plain["properties"], **structured["properties"]}
        if set(properties) != set(body.parameters.served):
            raise ValueError(f"{body.name}: {set(properties) ^ set(body.parameters.served)}")
        for unused, values in body.parameters.asks_for_nothing.items():
            properties[unused] = {"enum": [*values, None], "description": _NOT_SERVED}
        for unused in body.parameters.unsupported:
            properties.setdefault(unused, {"type": "null", "description": _NOT_SERVED})
        schema = {
            "type": "object",
            "properties": dict(sorted(properties.items())),
            "required": structured.get("required", []),
            "additionalProperties": False,
        }
        self._add(body.name, schema)
        return {"$ref": self._place + body.name}

    def _add(self, name: str, schema: Schema) -> None:
        if self.named.setdefault(self._prefix + name, schema) != schema:
            raise ValueError(f"Two schemas are called {name}.")


_NOT_SERVED: Final = "Not served: leave it out, or send a value that asks for nothing."
