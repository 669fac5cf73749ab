"""The routes, and the application that uvicorn serves."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from penstock_realtime.http.errors import on_bug, on_http_error, on_penstock_error
from penstock_realtime.http.models import ModelsApi
from penstock_realtime.http.responses import ResponsesApi
from penstock_realtime.http.sockets import Sockets
from penstock_shared.contracts.errors import PenstockError


def build_api(responses: ResponsesApi, models: ModelsApi, sockets: Sockets) -> ASGIApp:
    """OpenAI's paths below `/v1`. Cross-origin requests stay refused: no CORS header is sent."""
    return Starlette(
        routes=[
            Route("/v1/responses", responses.create, methods=["POST"]),
            WebSocketRoute("/v1/responses", sockets),
            Route("/v1/responses/{response_id}", responses.retrieve, methods=["GET"]),
            Route("/v1/responses/{response_id}/cancel", responses.cancel, methods=["POST"]),
            Route("/v1/models", models.list_models, methods=["GET"]),
            Route("/v1/models/{model}", models.retrieve_model, methods=["GET"]),
        ],
        exception_handlers={
            PenstockError: on_penstock_error,
            HTTPException: on_http_error,
            Exception: on_bug,
        },
    )
