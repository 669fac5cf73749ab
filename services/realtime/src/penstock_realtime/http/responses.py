"""`/v1/responses` over plain HTTP and server-sent events."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock_realtime.domain.create_request import parse_create
from penstock_realtime.domain.rendering import Framing, compact
from penstock_realtime.domain.response_object import finished
from penstock_realtime.errors import FeedClosedError
from penstock_realtime.http.bearer import bearer
from penstock_realtime.http.body import read_body
from penstock_realtime.http.disconnect import DisconnectWatch
from penstock_realtime.http.errors import Headers, error_response
from penstock_realtime.ports import Allowance
from penstock_realtime.serving.admission import Admissions, Admitted, require_allowed
from penstock_realtime.serving.lookup import Lookup
from penstock_realtime.serving.streaming import events
from penstock_shared.contracts.errors import PenstockError, PermanentError, TransientError
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.access import AccessControl
from penstock_shared.runtime.telemetry import log

_CLIENT_GONE: Final = 499
"""nginx's status for it; nobody reads it but the metrics."""
_PATIENCE_S: Final = 0.2
"""How long the client of a plain request may be gone before anybody looks."""


@dataclass(frozen=True, slots=True)
class ResponsesApi:
    """The endpoints of one resource."""

    access: AccessControl
    admissions: Admissions
    lookup: Lookup
    max_body_bytes: int

    async def create(self, request: Request) -> Response:
        """`POST /v1/responses`."""
        identity = self.access.authenticate(bearer(request.headers.get("authorization")))
        state = request.scope["state"]
        call = self.admissions.identify(
            identity,
            state["request_id"],
            request.headers.get("idempotency-key"),
            request.headers.get("traceparent"),
        )
        state["request_id"] = call.request_id
        allowance = await self.admissions.limit(call)
        headers = limit_headers(allowance)
        try:
            require_allowed(allowance)
            given = parse_create(await read_body(request, self.max_body_bytes))
            lane = Lane.INTERACTIVE if given.stream else Lane.STANDARD
            admitted = await self.admissions.admit(call, given, lane)
        except PenstockError as error:
            return error_response(error, headers)
        if given.stream:
            return SseResponse(admitted, self.lookup, call.tenant, headers)
        return await self._whole(request, admitted, call.tenant, headers)

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/responses/{id}`: from the event log."""
        identity = self.access.authenticate(bearer(request.headers.get("authorization")))
        for name in request.query_params:
            if name not in {"include", "include[]", "stream"} or request.query_params[name] not in {
                "",
                "false",
            }:
                msg = f"The query parameter {name[:80]!r} is not supported."
                raise PermanentError(msg, code="unsupported_parameter", param=name[:80])
        request_id = parse_request_id(request.path_params["response_id"])
        body = await self.lookup.response(identity.tenant.tenant, request_id)
        return Response(compact(body), media_type="application/json")

    async def cancel(self, request: Request) -> Response:
        """`POST /v1/responses/{id}/cancel`."""
        identity = self.access.authenticate(bearer(request.headers.get("authorization")))
        request_id = parse_request_id(request.path_params["response_id"])
        body = await self.lookup.cancel(identity.tenant.tenant, request_id)
        return Response(compact(body), media_type="application/json")

    async def _whole(
        self, request: Request, admitted: Admitted, tenant: str, headers: Headers
    ) -> Response:
        following = admitted.following
        try:
            with DisconnectWatch(request.receive, following, _PATIENCE_S):
                final = await following.final(ended=admitted.accepted.ended)
        except FeedClosedError:
            await cancel_abandoned(self.lookup, tenant, admitted)
            return Response(status_code=_CLIENT_GONE)
        except PenstockError as error:
            return error_response(error, headers)
        finally:
            await following.close()
        body = compact(finished(admitted.head, final))
        return Response(body, headers=headers, media_type="application/json")


class SseResponse(Response):
    """A response as server-sent events; closing the connection cancels it."""

    def __init__(self, admitted: Admitted, lookup: Lookup, tenant: str, headers: Headers) -> None:
        super().__init__(headers=headers, media_type="text/event-stream")
        del self.headers["content-length"]
        self._admitted = admitted
        self._lookup = lookup
        self._tenant = tenant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send events until the response ends or the client goes."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        following = self._admitted.following
        try:
            with DisconnectWatch(receive, following):
                async with aclosing(events(self._admitted, Framing(server_sent=True))) as batches:
                    async for batch in batches:
                        body = b"".join(batch)
                        await send({"type": "http.response.body", "body": body, "more_body": True})
        except FeedClosedError:
            await cancel_abandoned(self._lookup, self._tenant, self._admitted)
        finally:
            await following.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def cancel_abandoned(lookup: Lookup, tenant: str, admitted: Admitted) -> None:
    """Nobody waits for it any more: stop the generation, best effort.

    Not so with an idempotency key: whoever sends one means to come back for the same answer, and
    may be attached through another connection already.
    """
    if admitted.keyed:
        return
    request_id = admitted.head.request_id
    try:
        await lookup.commands.cancel(tenant, request_id)
    except TransientError:
        log().warning("cancel.not_stored", request_id=request_id)


def limit_headers(allowance: Allowance) -> Headers:
    """OpenAI's rate-limit headers."""
    return {
        "x-ratelimit-limit-requests": str(allowance.limit),
        "x-ratelimit-remaining-requests": str(allowance.remaining),
        "x-ratelimit-reset-requests": f"{allowance.reset_s:.3f}s",
    }
