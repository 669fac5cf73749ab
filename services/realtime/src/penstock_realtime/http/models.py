"""`/v1/models`: from memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from penstock_realtime.domain.rendering import compact
from penstock_realtime.ports import ModelCatalogue
from penstock_realtime.serving.authentication import Authentication
from penstock_shared.contracts.errors import NotFoundError
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import AUTO_MODEL
from penstock_shared.runtime.access import Permission


@dataclass(frozen=True, slots=True)
class ModelsApi:
    """The endpoints of one resource."""

    authentication: Authentication
    catalogue: ModelCatalogue

    async def list_models(self, request: Request) -> Response:
        """`GET /v1/models`: those that serve; `auto` leaves the choice to the router."""
        await self.authentication.caller(request.headers.get("authorization"), Permission.READ)
        serving = (record for record in self.catalogue.values() if not record.quarantined)
        records = sorted(serving, key=lambda record: record.name)
        body = {"object": "list", "data": [_auto(), *map(_model, records)]}
        return Response(compact(body), media_type="application/json")

    async def retrieve_model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`, also of one in quarantine, which says so."""
        await self.authentication.caller(request.headers.get("authorization"), Permission.READ)
        name = request.path_params["model"]
        if name == AUTO_MODEL:
            return Response(compact(_auto()), media_type="application/json")
        record = self.catalogue.get(name)
        if record is None:
            msg = f"The model {name[:256]!r} does not exist."
            raise NotFoundError(msg, code="model_not_found", param="model")
        return Response(compact(_model(record)), media_type="application/json")


def _auto() -> dict[str, Any]:
    return {"id": AUTO_MODEL, "object": "model", "created": 0, "owned_by": "penstock"}


def _model(record: ModelRecord) -> dict[str, Any]:
    """The vendor's fields, and ours beside them: what the model is for, costs and takes."""
    return {
        "id": record.name,
        "object": "model",
        "created": record.created_unix_s,
        "owned_by": "penstock" if record.origin == "bundled" else "operator",
        "kind": record.kind.value,
        "status": "quarantined" if record.quarantined else "serving",
        "price": record.price.model_dump(exclude_defaults=True),
        "context_tokens": record.context_tokens,
        "dimensions": None if record.embedding is None else record.embedding.dimensions,
    }
