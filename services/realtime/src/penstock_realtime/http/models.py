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
        models = [_model(record.name, record.created_unix_s) for record in records]
        body = {"object": "list", "data": [_model(AUTO_MODEL, 0), *models]}
        return Response(compact(body), media_type="application/json")

    async def retrieve_model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`."""
        self.access.authenticate(bearer(request.headers.get("authorization")))
        name = request.path_params["model"]
        record = self.catalogue.get(name)
        if record is None and name != AUTO_MODEL:
            msg = f"The model {name[:256]!r} does not exist."
            raise NotFoundError(msg, code="model_not_found", param="model")
        created = record.created_unix_s if record else 0
        return Response(compact(_model(name, created)), media_type="application/json")


def _model(name: str, created_unix_s: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created_unix_s, "owned_by": "penstock"}
