"""`/v1/responses/{id}`: retrieve, follow, cancel and delete; what it was asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from penstock_realtime.domain.input_items import page
from penstock_realtime.domain.parameters import invalid
from penstock_realtime.domain.rendering import EventStream, Framing, compact, delta_before
from penstock_realtime.domain.response_object import response_id
from penstock_realtime.http.generation import SseResponse
from penstock_realtime.serving.authentication import Authentication
from penstock_realtime.serving.lookup import Lookup
from penstock_realtime.serving.sessions import Sessions
from penstock_realtime.serving.streaming import events
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.runtime.access import Identity, Permission

_BOOLEANS: Final = {"true": True, "false": False, "": False}
_ASKS_FOR_NOTHING: Final = {
    "include": frozenset({""}),
    "include[]": frozenset({""}),
    "include_obfuscation": frozenset({"", "false"}),
}
"""Query parameters that are not served, and the values by which they are not used."""


class ItemsQuery(BaseModel):
    """Which page of a response's input items."""

    model_config = ConfigDict(frozen=True)

    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"


@dataclass(frozen=True, slots=True)
class RetrievalApi:
    """Responses by their ids."""

    authentication: Authentication
    lookup: Lookup
    sessions: Sessions

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/responses/{id}`: the object, or its events after a sequence number."""
        identity, request_id = await self._asked(request, Permission.READ)
        stream, after = _window(request)
        tenant = identity.tenant.tenant
        if not stream:
            return _json(await self.lookup.response(tenant, request_id))
        head, following = await self.lookup.follow(tenant, request_id)
        renderer = EventStream(head, Framing(server_sent=True), after)
        told = events(following, renderer, after=delta_before(after))
        follower = request.scope["state"]["request_id"]
        return SseResponse(following, self._followed(tenant, request_id, follower, told))

    async def list_input_items(self, request: Request) -> Response:
        """`GET /v1/responses/{id}/input_items`: a page of what it was asked."""
        identity, request_id = await self._asked(request, Permission.READ)
        query = _page_of(request)
        items = await self.lookup.input_items(identity.tenant.tenant, request_id)
        return _json(page(items, **query.model_dump()))

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/responses/{id}/cancel`."""
        identity, request_id = await self._asked(request, Permission.WRITE)
        return _json(await self.lookup.cancel(identity.tenant.tenant, request_id))

    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/responses/{id}`."""
        identity, request_id = await self._asked(request, Permission.WRITE)
        await self.lookup.delete(identity.tenant.tenant, request_id, identity.key_id)
        return _json({"id": response_id(request_id), "object": "response", "deleted": True})

    async def _followed(
        self,
        tenant: str,
        request_id: str,
        follower: str,
        stream: AsyncGenerator[list[bytes], None],
    ) -> AsyncGenerator[list[bytes], None]:
        """Keeps a response from being cancelled for its lost WebSocket, while somebody listens.

        Whoever goes has only looked on: that cancels nothing.
        """
        self.sessions.follow(tenant, request_id, follower)
        try:
            async with aclosing(stream):
                async for batch in stream:
                    yield batch
        finally:
            self.sessions.unfollow(tenant, request_id, follower)

    async def _asked(self, request: Request, permission: Permission) -> tuple[Identity, str]:
        identity = await self.authentication.caller(
            request.headers.get("authorization"), permission
        )
        return identity, parse_request_id(request.path_params["response_id"])


def _window(request: Request) -> tuple[bool, int]:
    """Whether to stream, and the last sequence number that the client has: -1 for none."""
    stream, after = False, -1
    for name, value in request.query_params.multi_items():
        if name == "stream":
            if value not in _BOOLEANS:
                raise _invalid(name, "'true' or 'false'")
            stream = _BOOLEANS[value]
        elif name == "starting_after":
            if not (value.isascii() and value.isdecimal() and len(value) <= 18):  # noqa: PLR2004
                raise _invalid(name, "a sequence number")
            after = int(value)
        elif value not in _ASKS_FOR_NOTHING.get(name, ()):
            raise _not_served(name)
    if after >= 0 and not stream:
        msg = "'starting_after' needs 'stream=true'."
        raise PermanentError(msg, code="invalid_value", param="starting_after")
    return stream, after


def _page_of(request: Request) -> ItemsQuery:
    given = dict(request.query_params)
    for name in given.keys() - ItemsQuery.model_fields:
        if given.pop(name) not in _ASKS_FOR_NOTHING.get(name, ()):
            raise _not_served(name)
    try:
        return ItemsQuery.model_validate(given)
    except ValidationError as error:
        raise invalid(error) from error


def _not_served(name: str) -> PermanentError:
    msg = f"The query parameter {name[:80]!r} is not supported: leave it out."
    return PermanentError(msg, code="unsupported_parameter", param=name[:80])


def _invalid(name: str, expected: str) -> PermanentError:
    return PermanentError(f"'{name}' is {expected}.", code="invalid_value", param=name)


def _json(body: dict[str, Any]) -> Response:
    return Response(compact(body), media_type="application/json")
