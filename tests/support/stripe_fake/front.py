"""The HTTP side: who asks, in which version, how often, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from tests.support.stripe_fake.account import API_VERSION, Account, Cause
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.expansion import expand
from tests.support.stripe_fake.failures import Failure, broken, too_many
from tests.support.stripe_fake.idempotency import Answer, Keys
from tests.support.stripe_fake.limits import Limits
from tests.support.stripe_fake.reading import Reader
from tests.support.stripe_fake.schedule import catch_up
from tests.support.vendor_faults import Fault, Faults, Kind
from tests.support.vendor_server import lose_answer, loses_answer


@dataclass
class Front:
    """An ASGI application that answers as api.stripe.com does."""

    account: Account
    reader: Reader
    faults: Faults
    keys: Keys
    limits: Limits
    lock: threading.RLock
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
        path, key = unquote(request.url.path), request.headers.get("idempotency-key")
        rule, call = self.reader.read(request, path, body)
        if request.method != "POST" or key is None:
            return _spoilt(await self._run(rule, call, Cause(request_id)), fault)
        with self.lock:
            now = self.account.clock.now()
            replay = self.keys.begin(key, path, body, request_id, now)
        if replay is not None:
            return replay
        kept: Answer | None = None
        try:
            kept = done = await self._run(rule, call, Cause(request_id, key))
            answer = _spoilt(done, fault)
            kept = answer if path.startswith("/v1/") else done
        except Failure as failure:
            if failure.saved and path.startswith("/v1/"):
                kept = Answer(failure.status, failure.body(), failure.headers)
            raise
        finally:
            with self.lock:
                self.keys.end(key, kept)
        return answer

    async def _run(self, rule: Rule, call: Call, cause: Cause) -> Answer:
        with self.limits.lane(rule.lane(call)) if rule.lane else contextlib.nullcontext():
            if rule.lane:
                await asyncio.sleep(self.service_s)
            with self.lock, self._caused(cause):
                catch_up(self.account)
                body = rule.run(self.account, call)
                return Answer(200, expand(self.account, body, call.params.get("expand", [])))

    @contextlib.contextmanager
    def _caused(self, cause: Cause) -> Iterator[None]:
        self.account.cause = cause
        try:
            yield
        finally:
            self.account.cause = Cause()


def _strike(fault: Fault | None) -> None:
    """A fault before the effect."""
    if fault is not None and fault.kind is Kind.RATE_LIMIT:
        raise too_many("global-rate")
    if fault is not None and not fault.effect:
        raise broken()


def _spoilt(answer: Answer, fault: Fault | None) -> Answer:
    """A 500 in place of an answer whose effect has happened."""
    if fault is None or fault.kind is not Kind.ERROR:
        return answer
    failure = broken()
    return Answer(failure.status, failure.body())


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
