"""The HTTP side: who asks, in which version, how often, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from tests.support.stripe_fake.account import API_VERSION, Account, Cause
from tests.support.stripe_fake.call import STREAM, Call, Rule
from tests.support.stripe_fake.expansion import expand
from tests.support.stripe_fake.failures import Failure, broken, too_many
from tests.support.stripe_fake.idempotency import Answer, Keys
from tests.support.stripe_fake.limits import Limits
from tests.support.stripe_fake.parameters import checked, checked_json, decode_form
from tests.support.stripe_fake.schedule import catch_up
from tests.support.vendor_faults import Fault, Faults, Kind
from tests.support.vendor_server import lose_answer, loses_answer


@dataclass
class Front:
    """An ASGI application that answers as api.stripe.com does."""

    account: Account
    rules: tuple[Rule, ...]
    faults: Faults
    keys: Keys
    limits: Limits
    lock: threading.RLock
    api_key: str
    service_s: float = 0.001
    """How long a call that must not meet another of its lane is at work."""
    defects: list[Exception] = field(default_factory=list)
    """Mistakes of the fake itself: they fail the test that met them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        body = (await request.body()).decode()
        method, path = request.method, unquote(request.url.path)
        with self.lock:
            request_id = self.account.store.new_id("req", 14)
            fault = self.faults.next(method, path)
        answer = await self._answer(request, body, request_id, fault)
        if fault is not None and loses_answer(fault):
            await lose_answer(fault, request)
            return
        await _send(send, answer, request_id, request.headers.get("idempotency-key"))

    async def _answer(
        self, request: Request, body: str, request_id: str, fault: Fault | None
    ) -> Answer:
        try:
            _strike(fault)
            self.limits.admit()
            return await self._idempotent(request, body, request_id, fault)
        except Failure as failure:
            return Answer(failure.status, failure.body(), failure.headers)
        except Exception as defect:  # noqa: BLE001 - whatever it is, the test must hear of it
            self.defects.append(defect)
            return Answer(500, Failure(500, f"The fake is broken: {defect!r}").body())

    async def _idempotent(
        self, request: Request, body: str, request_id: str, fault: Fault | None
    ) -> Answer:
        path = unquote(request.url.path)
        rule, call = self._route(request, path, body)
        key = request.headers.get("idempotency-key")
        if request.method != "POST" or key is None:
            return await self._run(rule, call, Cause(request_id), fault)
        with self.lock:
            now = self.account.clock.now()
            replay = self.keys.begin(key, path, body, request_id, now)
        if replay is not None:
            return replay
        kept: Answer | None = None
        try:
            kept = await self._run(rule, call, Cause(request_id, key), fault)
        except Failure as failure:
            if failure.saved and not path.startswith("/v2/"):
                kept = Answer(failure.status, failure.body(), failure.headers)
            raise
        finally:
            with self.lock:
                self.keys.end(key, kept)
        return kept

    def _route(self, request: Request, path: str, body: str) -> tuple[Rule, Call]:
        streamed = path.startswith(f"{STREAM}/")
        if not streamed:  # the stream's sessions are the stream's own matter
            self._check_key(request)
        _check_version(request)
        for rule in self.rules:
            found = rule.pattern.match(path)
            if rule.method == request.method and found is not None:
                call = self._read(rule, request, path, found.groupdict(), body)
                if (name := rule.unmodelled(call.params)) is not None:
                    message = f"The fake does not model `{name}` of {rule.method} {rule.path}."
                    raise Failure(501, message, param=name, saved=False)
                return rule, call
        message = f"Unrecognized request URL ({request.method}: {path}). Please see "
        message += "https://stripe.com/docs or we can help at https://support.stripe.com/."
        raise Failure(404, message, saved=False)

    def _read(
        self, rule: Rule, request: Request, path: str, names: dict[str, str], body: str
    ) -> Call:
        token = _bearer(request)
        if "/v2/" in path:
            if request.method == "POST":
                return Call(path, names, checked_json(rule.params, _json(body)), token)
            given = decode_form(request.url.query)
            place = {"page": given.pop("page")} if "page" in given else {}
            return Call(path, names, {**checked(rule.params, given), **place}, token)
        text = body if request.method == "POST" else request.url.query
        return Call(path, names, checked(rule.params, decode_form(text)), token)

    async def _run(self, rule: Rule, call: Call, cause: Cause, fault: Fault | None) -> Answer:
        with self.limits.lane(rule.lane(call)) if rule.lane else contextlib.nullcontext():
            if rule.lane:
                await asyncio.sleep(self.service_s)
            with self.lock, self._caused(cause):
                catch_up(self.account)
                body = rule.run(self.account, call)
                body = expand(self.account, body, call.params.get("expand", []))
        if fault is not None and fault.kind is Kind.ERROR:
            failure = broken()  # the endpoint ran, so that v1 keeps and replays this very answer
            return Answer(failure.status, failure.body())
        return Answer(200, body)

    @contextlib.contextmanager
    def _caused(self, cause: Cause) -> Iterator[None]:
        self.account.cause = cause
        try:
            yield
        finally:
            self.account.cause = Cause()

    def _check_key(self, request: Request) -> None:
        token = _bearer(request)
        if token != self.api_key:
            shown = f"{token[:8]}***{token[-4:]}" if token else ""
            message = f"Invalid API Key provided: {shown}" if token else "You did not provide an "
            message += "" if token else "API key. You need to provide your API key in the "
            message += "" if token else "Authorization header, using Bearer auth."
            raise Failure(401, message, saved=False)


def _strike(fault: Fault | None) -> None:
    """A fault before the effect."""
    if fault is not None and fault.kind is Kind.RATE_LIMIT:
        raise too_many("global-rate")
    if fault is not None and not fault.effect:
        raise broken()


def _bearer(request: Request) -> str:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme == "Basic":
        return base64.b64decode(value).decode().partition(":")[0]
    return value if scheme == "Bearer" else ""


def _check_version(request: Request) -> None:
    """A client that pins a version sends it (https://docs.stripe.com/api/versioning)."""
    fallback = None if "/v2/" in request.url.path else API_VERSION  # v2 always wants it
    asked = request.headers.get("stripe-version", fallback)
    if asked != API_VERSION:
        raise Failure(400, f"Invalid Stripe API version: {asked}", saved=False)


def _json(body: str) -> dict[str, Any]:
    try:
        given = json.loads(body or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise Failure(400, "The request body is not a JSON object.", saved=False)
    return given


async def _send(send: Send, answer: Answer, request_id: str, key: str | None) -> None:
    content = json.dumps(answer.body, indent=2).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(content)),
        "request-id": request_id,
        "stripe-version": API_VERSION,
        **({"idempotency-key": key} if key else {}),
        **answer.headers,
    }
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})
