"""`/v1/responses`: create."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from penstock_realtime.domain.create_request import parse_create
from penstock_realtime.domain.rendering import EventStream, Framing
from penstock_realtime.domain.response_object import finished
from penstock_realtime.http.generation import Dialect, Generations

RESPONSES: Final = Dialect(
    parse=parse_create,
    render=lambda admitted: EventStream(admitted.head, Framing(server_sent=True)),
    whole=lambda admitted, final: finished(admitted.head, final),
)


@dataclass(frozen=True, slots=True)
class ResponsesApi:
    """The Responses API's dialect over HTTP."""

    generations: Generations

    async def create(self, request: Request) -> Response:
        """`POST /v1/responses`."""
        return await self.generations.create(request, RESPONSES)
