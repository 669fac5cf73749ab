"""`/v1/models`: from memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from penstock_realtime.domain.rendering import compact
from penstock_realtime.http.bearer import bearer
from penstock_realtime.ports import ModelCatalogue
from penstock_shared.contracts.errors import NotFoundError
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import AUTO_MODEL
from penstock_shared.runtime.access import AccessControl


@dataclass(frozen=True, slots=True)
class ModelsApi:
    """The endpoints of one resource."""

    access: AccessControl
    catalogue: ModelCatalogue

    async def list_models(self, request: Request) -> Response:
        """`GET /v1/models`; `auto` leaves the choice to the router."""
        self.access.authenticate(bearer(request.headers.get("authorization")))
        records = sorted(self.catalogue.values(), key=lambda record: record.name)
        body = {"object": "list", "data": [_auto(), *map(_model, records)]}
        return Response(compact(body), media_type="application/json")

    async def retrieve_model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`."""
        self.access.authenticate(bearer(request.headers.get("authorization")))
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
    """The vendor's fields, and ours beside them: what the model costs and takes."""
    return {
        "id": record.name,
        "object": "model",
        "created": record.created_unix_s,
        "owned_by": "penstock",
        "price": record.price.model_dump(),
        "context_tokens": record.context_tokens,
    }
