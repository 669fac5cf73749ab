"""`/openapi.json` and `/asyncapi.json`: what is served, for anybody."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from penstock_realtime.domain.rendering import compact
from penstock_realtime.http.documents.asyncapi import asyncapi
from penstock_realtime.http.documents.openapi import openapi


class DocumentsApi:
    """Both documents, made once."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._openapi = compact(openapi(routes))
        self._asyncapi = compact(asyncapi())

    async def describe_http(self, _: Request) -> Response:
        """`GET /openapi.json`."""
        return Response(self._openapi, media_type="application/json")

    async def describe_events(self, _: Request) -> Response:
        """`GET /asyncapi.json`."""
        return Response(self._asyncapi, media_type="application/json")
