"""The routes, and the application that uvicorn serves."""

from __future__ import annotations

from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock_realtime.http.chat import ChatApi
from penstock_realtime.http.documents.api import DocumentsApi
from penstock_realtime.http.embeddings import EmbeddingsApi
from penstock_realtime.http.errors import on_bug, on_http_error, on_penstock_error
from penstock_realtime.http.feedback import FeedbackApi
from penstock_realtime.http.invoices import InvoicesApi
from penstock_realtime.http.keys import KeysApi
from penstock_realtime.http.models import ModelsApi
from penstock_realtime.http.organization import OrganizationApi
from penstock_realtime.http.responses import ResponsesApi
from penstock_realtime.http.retrieval import RetrievalApi
from penstock_realtime.http.sockets import Sockets
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.telemetry import log

_RESPONSES: Final = "/v1/responses"


def build_api(
    *,
    responses: ResponsesApi,
    retrieval: RetrievalApi,
    feedback: FeedbackApi,
    chat: ChatApi,
    embeddings: EmbeddingsApi,
    models: ModelsApi,
    keys: KeysApi,
    organization: OrganizationApi,
    invoices: InvoicesApi,
    sockets: Sockets,
) -> ASGIApp:
    """OpenAI's paths below `/v1`. Cross-origin requests stay refused: no CORS header is sent."""
    described = [
        Route(_RESPONSES, responses.create, methods=["POST"]),
        Route("/v1/responses/{response_id}", retrieval.retrieve, methods=["GET"]),
        Route("/v1/responses/{response_id}", retrieval.delete, methods=["DELETE"]),
        Route(
            "/v1/responses/{response_id}/input_items", retrieval.list_input_items, methods=["GET"]
        ),
        Route("/v1/responses/{response_id}/cancel", retrieval.cancel, methods=["POST"]),
        Route("/v1/responses/{answer_id}/feedback", feedback.give_feedback, methods=["POST"]),
        Route("/v1/chat/completions", chat.create_chat_completion, methods=["POST"]),
        Route("/v1/embeddings", embeddings.create_embeddings, methods=["POST"]),
        Route("/v1/api_keys", keys.list_keys, methods=["GET"]),
        Route("/v1/api_keys", keys.create_key, methods=["POST"]),
        Route("/v1/api_keys/{key_id}", keys.delete_key, methods=["DELETE"]),
        Route("/v1/api_keys/{key_id}/rotate", keys.rotate_key, methods=["POST"]),
        Route(
            "/v1/organization/usage/completions", organization.usage_completions, methods=["GET"]
        ),
        Route("/v1/organization/usage/embeddings", organization.usage_embeddings, methods=["GET"]),
        Route("/v1/organization/costs", organization.costs, methods=["GET"]),
        Route("/v1/billing/invoice/preview", invoices.preview_invoice, methods=["GET"]),
        Route("/v1/billing/invoices", invoices.list_invoices, methods=["GET"]),
        Route("/v1/models", models.list_models, methods=["GET"]),
        Route("/v1/models/{model:path}", models.retrieve_model, methods=["GET"]),
    ]
    documents = DocumentsApi(described)
    routes = Starlette(
        routes=[
            *described,
            Route("/openapi.json", documents.describe_http, methods=["GET"]),
            Route("/asyncapi.json", documents.describe_events, methods=["GET"]),
        ],
        exception_handlers={
            PenstockError: on_penstock_error,
            HTTPException: on_http_error,
            Exception: on_bug,
        },
    )
    routes.router.redirect_slashes = False  # a path that is nearly right is a 404, not a 307
    return ShortCut(routes, responses, sockets)


class ShortCut:
    """`/v1/responses` past routing and middleware: they took 70 of a request's 400 µs."""

    def __init__(self, routes: ASGIApp, responses: ResponsesApi, sockets: ASGIApp) -> None:
        self._routes = routes
        self._responses = responses
        self._sockets = sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["path"] != _RESPONSES:
            await self._routes(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._sockets(scope, receive, send)
        elif scope["method"] == "POST":
            await self._create(scope, receive, send)
        else:
            await self._routes(scope, receive, send)

    async def _create(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"] = self._responses.create  # the metrics call the route by its name
        request = Request(scope, receive)
        try:
            response = await self._responses.create(request)
        except PenstockError as error:
            response = await on_penstock_error(request, error)
        except Exception as error:  # noqa: BLE001  a bug is answered like any other failure
            request_id = scope["state"]["request_id"]
            log().error("http.endpoint_failed", request_id=request_id, exc_info=error)
            response = await on_bug(request, error)
        await response(scope, receive, send)
