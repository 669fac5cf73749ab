"""The HTTP side: whose request it is, which endpoint, which answer."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from xml.parsers.expat import ExpatError

from braintree.util.xml_util import XmlUtil
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tests.support.braintree_fake import transactions, vault
from tests.support.braintree_fake.books import Books
from tests.support.braintree_fake.refusals import Refusal
from tests.support.braintree_fake.wire import Members, to_xml
from tests.support.vendor_faults import Fault, Faults, Kind
from tests.support.vendor_server import lose_answer, loses_answer

_VERSION: Final = "6"
Act = Callable[[Books, str, Members], Members]
_TRANSACTION: Final = r"transactions/([^/]+)"


def _criteria(given: Members) -> Members:
    return given.get("search") or {}


_ACTS: Final[tuple[tuple[str, str, Act], ...]] = (
    ("POST", "customers", lambda b, _, g: vault.create_customer(b, g["customer"])),
    ("GET", r"customers/([^/]+)", lambda b, i, _: vault.find_customer(b, i)),
    ("PUT", r"customers/([^/]+)", lambda b, i, g: vault.update_customer(b, i, g["customer"])),
    ("DELETE", r"customers/([^/]+)", lambda b, i, _: vault.delete_customer(b, i)),
    ("POST", "payment_methods", lambda b, _, g: vault.create_method(b, g["payment_method"])),
    ("GET", r"payment_methods/any/([^/]+)", lambda b, i, _: vault.find_method(b, i)),
    ("DELETE", r"payment_methods/any/([^/]+)", lambda b, i, _: vault.delete_method(b, i)),
    ("POST", "transactions", lambda b, _, g: transactions.sale(b, g["transaction"])),
    (
        "POST",
        "transactions/advanced_search_ids",
        lambda b, _, g: transactions.search_ids(b, _criteria(g)),
    ),
    (
        "POST",
        "transactions/advanced_search",
        lambda b, _, g: transactions.search(b, _criteria(g)),
    ),
    ("GET", _TRANSACTION, lambda b, i, _: transactions.find(b, i)),
    (
        "POST",
        f"{_TRANSACTION}/refund",
        lambda b, i, g: transactions.refund(b, i, g.get("transaction") or {}),
    ),
    ("PUT", f"{_TRANSACTION}/void", lambda b, i, _: transactions.void(b, i)),
    ("PUT", f"{_TRANSACTION}/settle", lambda b, i, _: transactions.move(b, i, "settled")),
    (
        "PUT",
        f"{_TRANSACTION}/settlement_confirm",
        lambda b, i, _: transactions.move(b, i, "settlement_confirmed"),
    ),
    (
        "PUT",
        f"{_TRANSACTION}/settlement_decline",
        lambda b, i, _: transactions.move(b, i, "settlement_declined"),
    ),
    (
        "PUT",
        f"{_TRANSACTION}/settlement_pending",
        lambda b, i, _: transactions.move(b, i, "settlement_pending"),
    ),
)


@dataclass
class Front:
    """An ASGI application that answers as api.braintreegateway.com does."""

    books: Books
    keys: dict[str, str]
    """Private keys by public ones."""
    faults: Faults = field(default_factory=Faults)
    lock: threading.RLock = field(default_factory=threading.RLock)
    defects: list[Exception] = field(default_factory=list)
    """Mistakes of the fake itself: they fail the test that met them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        body = (await request.body()).decode()
        with self.lock:
            fault = self.faults.next(request.method, self._path(request))
            answer = self._answer(request, body, fault)
        if fault is not None and loses_answer(fault):
            await lose_answer(fault, request)
            return
        await answer(scope, receive, send)

    def _path(self, request: Request) -> str:
        """Below the merchant: `/transactions/abc/refund`."""
        return request.url.path.removeprefix(f"/merchants/{self.books.merchant_id}")

    def _answer(self, request: Request, body: str, fault: Fault | None) -> Response:
        try:
            _strike(fault)
            found = self._run(request, body)
        except Refusal as refusal:
            found = {} if refusal.body is None else {"api_error_response": refusal.body}
            return _response(refusal.status, found)
        except Exception as defect:  # noqa: BLE001 - whatever it is, the test must hear of it
            self.defects.append(defect)
            return _response(500, {})
        if fault is not None and fault.kind is Kind.ERROR:
            return _response(500, {})
        return _response(201 if request.method == "POST" else 200, found)

    def _run(self, request: Request, body: str) -> Members:
        self._check(request)
        path = self._path(request).removeprefix("/")
        given: Members = _parsed(body) if body.strip() else {}
        for method, pattern, act in _ACTS:
            found = re.fullmatch(pattern, path)
            if method == request.method and found is not None:
                return act(self.books, found.group(1) if found.groups() else "", given)
        raise Refusal(404)

    def _check(self, request: Request) -> None:
        """401 for wrong keys, 404 for another's merchant, 426 for a client that is too old."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        public, _, private = base64.b64decode(value).decode().partition(":")
        if scheme != "Basic" or self.keys.get(public) != private:
            raise Refusal(401)
        if self._path(request) == request.url.path:
            raise Refusal(404)
        if request.headers.get("x-apiversion") != _VERSION:
            raise Refusal(426)


def _strike(fault: Fault | None) -> None:
    """A fault before the effect: a 429 always is one."""
    if fault is not None and fault.kind is Kind.RATE_LIMIT:
        raise Refusal(429)
    if fault is not None and not fault.effect:
        raise Refusal(500)


def _parsed(body: str) -> Members:
    try:
        given: Members = XmlUtil.dict_from_xml(body)
    except ExpatError:
        raise Refusal(400) from None
    return given


def _response(status: int, found: Members) -> Response:
    text = "".join(to_xml(name, value) for name, value in found.items())
    return Response(text, status, media_type="application/xml")
