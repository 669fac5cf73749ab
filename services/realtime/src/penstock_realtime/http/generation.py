"""The way of every request that generates, whichever API it speaks: one flow, several dialects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_realtime.domain.renderer import Renderer
from penstock_realtime.domain.rendering import compact
from penstock_realtime.errors import FeedClosedError
from penstock_realtime.http.body import read_body
from penstock_realtime.http.disconnect import DisconnectWatch
from penstock_realtime.http.errors import DO_NOT_RETRY, Headers, error_response
from penstock_realtime.serving.admission import Admissions, Admitted, Call
from penstock_realtime.serving.authentication import Authentication
from penstock_realtime.serving.following import Following
from penstock_realtime.serving.lookup import Lookup
from penstock_realtime.serving.streaming import events
from penstock_shared.contracts.errors import PenstockError, TransientError
from penstock_shared.contracts.responses import FinalFrame
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.access import Permission
from penstock_shared.runtime.rate_limit import Allowance, Budget
from penstock_shared.runtime.telemetry import log

_CLIENT_GONE: Final = 499
"""nginx's status for it; nobody reads it but the metrics."""
_PATIENCE_S: Final = 0.2
"""How long the client of a plain request may be gone before anybody looks."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API: what its bodies mean, and how it tells a response."""

    parse: Callable[[bytes], GenerationRequest]
    whole: Callable[[Admitted, FinalFrame], dict[str, Any]]
    """The body of a plain answer; raises PenstockError where the API answers with a status."""
    render: Callable[[Admitted], Renderer] | None = None
    """For server-sent events; None where the API has none."""


@dataclass(frozen=True, slots=True)
class Generations:
    """Serves one request after the other, in any dialect."""

    authentication: Authentication
    admissions: Admissions
    lookup: Lookup
    max_body_bytes: int

    async def create(self, request: Request, dialect: Dialect) -> Response:
        """Authenticate, count, parse, admit; then the whole answer, a stream, or a promise."""
        identity = await self.authentication.caller(
            request.headers.get("authorization"), Permission.WRITE
        )
        state = request.scope["state"]
        call = self.admissions.identify(
            identity,
            state["request_id"],
            request.headers.get("idempotency-key"),
            request.headers.get("traceparent"),
            state.get("address"),
        )
        state["request_id"] = call.request_id
        body = await read_body(request, self.max_body_bytes)
        headers: Headers = {}
        try:
            given = await self._parse(call, dialect, body, headers)
            lane = Lane.INTERACTIVE if given.stream else Lane.STANDARD
            admitted = await self.admissions.admit(call, given, lane)
        except PenstockError as error:
            return error_response(error, headers)
        if given.stream and dialect.render is not None:
            return self._stream(admitted, dialect.render(admitted), headers)
        if given.background:
            await admitted.following.close()
            return _json(admitted.head.response("queued"), headers)
        return await self._whole(request, admitted, dialect, headers)

    async def _parse(
        self, call: Call, dialect: Dialect, body: bytes, headers: Headers
    ) -> GenerationRequest:
        """A request counts whether it is well-formed or not; `headers` gets the limits."""
        try:
            given = dialect.parse(body)
        except PenstockError:
            headers |= limit_headers(await self.admissions.limit(call, None))
            raise
        allowance = await self.admissions.limit(call, given)
        headers |= limit_headers(allowance)
        allowance.require()
        return given

    def _stream(self, admitted: Admitted, renderer: Renderer, headers: Headers) -> Response:
        stream = events(
            admitted.following,
            renderer,
            after=-1 if admitted.call.keyed else None,
            on_end=lambda final: self.admissions.settle(admitted, final),
        )
        return SseResponse(
            admitted.following, stream, headers, lambda: cancel_abandoned(self.lookup, admitted)
        )

    async def _whole(
        self, request: Request, admitted: Admitted, dialect: Dialect, headers: Headers
    ) -> Response:
        following = admitted.following
        try:
            with DisconnectWatch(request.receive, following, _PATIENCE_S):
                final = await following.final(ended=admitted.accepted.ended)
            self.admissions.settle(admitted, final)
            return _json(dialect.whole(admitted, final), headers)
        except FeedClosedError:
            await cancel_abandoned(self.lookup, admitted)
            return Response(status_code=_CLIENT_GONE)
        except PenstockError as error:
            # Without a key a repetition is another request, beside one that may still run.
            return error_response(error, headers if admitted.call.keyed else headers | DO_NOT_RETRY)
        finally:
            await following.close()


class SseResponse(Response):
    """A response as server-sent events; `abandoned` is called when the client has gone."""

    def __init__(
        self,
        following: Following,
        stream: AsyncGenerator[list[bytes], None],
        headers: Headers | None = None,
        abandoned: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(headers=headers, media_type="text/event-stream")
        del self.headers["content-length"]
        self._following = following
        self._stream = stream
        self._abandoned = abandoned

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send events until the response ends or the client goes."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            with DisconnectWatch(receive, self._following):
                async with aclosing(self._stream) as batches:
                    async for batch in batches:
                        body = b"".join(batch)
                        await send({"type": "http.response.body", "body": body, "more_body": True})
        except FeedClosedError:
            if self._abandoned is not None:
                await self._abandoned()
        finally:
            await self._following.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def cancel_abandoned(lookup: Lookup, admitted: Admitted) -> None:
    """Nobody waits for it any more: stop the generation, best effort.

    Not so in the background. Nor with an idempotency key: whoever sends one means to come back for
    the same answer, and may be attached through another connection already.
    """
    if admitted.call.keyed or admitted.given.background:
        return
    try:
        await lookup.commands.cancel(admitted.call.tenant, admitted.call.request_id)
    except TransientError:
        log().warning("cancel.not_stored", request_id=admitted.call.request_id)


def limit_headers(allowance: Allowance) -> Headers:
    """OpenAI's rate-limit headers."""
    headers = _budget_headers("requests", allowance.requests)
    if allowance.tokens is not None:
        headers |= _budget_headers("tokens", allowance.tokens)
    return headers


def _budget_headers(what: str, budget: Budget) -> Headers:
    return {
        f"x-ratelimit-limit-{what}": str(budget.limit),
        f"x-ratelimit-remaining-{what}": str(budget.remaining),
        f"x-ratelimit-reset-{what}": f"{budget.reset_s:.3f}s",
    }


def _json(body: dict[str, Any], headers: Headers) -> Response:
    return Response(compact(body), headers=headers, media_type="application/json")
