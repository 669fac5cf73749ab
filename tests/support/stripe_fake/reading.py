"""From a request to a call: who asks, in which version, of which endpoint, with what."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from tests.support.stripe_fake.account import API_VERSION
from tests.support.stripe_fake.call import STREAM, Call, Rule
from tests.support.stripe_fake.failures import Failure
from tests.support.stripe_fake.parameters import checked, checked_json, decode_form


@dataclass(frozen=True)
class Reader:
    """What the account's key opens. Nothing that is refused here reaches an endpoint."""

    rules: tuple[Rule, ...]
    api_key: str

    def read(self, request: Request, path: str, body: str) -> tuple[Rule, Call]:
        """The rule and its call.

        Raises:
            Failure: 401, an unknown address or version, or parameters that are wrong.
        """
        token = _bearer(request)
        if not path.startswith(f"{STREAM}/"):  # a stream's session is the stream's own matter
            _check_key(token, self.api_key)
        _check_version(request, path)
        rule, names = _find(self.rules, request.method, path)
        call = Call(path, names, _params(rule, request, path, body), token)
        if (name := rule.unmodelled(call.params)) is not None:
            message = f"The fake does not model `{name}` of {rule.method} {rule.path}."
            raise Failure(501, message, param=name, saved=False)
        return rule, call


def _find(rules: Iterable[Rule], method: str, path: str) -> tuple[Rule, dict[str, str]]:
    for rule in rules:
        found = rule.pattern.match(path)
        if rule.method == method and found is not None:
            return rule, found.groupdict()
    message = f"Unrecognized request URL ({method}: {path}). Please see "
    message += "https://stripe.com/docs or we can help at https://support.stripe.com/."
    raise Failure(404, message, saved=False)


def _params(rule: Rule, request: Request, path: str, body: str) -> dict[str, Any]:
    """v1 has forms, v2 JSON; v2's lists go on at an address that we made, with our `page` in it."""
    if request.method == "POST" and "/v2/" in path:
        return checked_json(rule.params, _json(body))
    given = decode_form(body if request.method == "POST" else request.url.query)
    place = {"page": given.pop("page")} if "/v2/" in path and "page" in given else {}
    return {**checked(rule.params, given), **place}


def _json(body: str) -> dict[str, Any]:
    try:
        given = json.loads(body or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise Failure(400, "The request body is not a JSON object.", saved=False)
    return given


def _bearer(request: Request) -> str:
    """A bearer, or the user of basic authentication (docs.stripe.com/api/authentication)."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme == "Basic":
        return base64.b64decode(value).decode().partition(":")[0]
    return value if scheme == "Bearer" else ""


def _check_key(token: str, api_key: str) -> None:
    if not token:
        message = "You did not provide an API key. You need to provide your API key in the "
        raise Failure(401, message + "Authorization header, using Bearer auth.", saved=False)
    if token != api_key:
        shown = f"{token[:8]}***{token[-4:]}"
        raise Failure(401, f"Invalid API Key provided: {shown}", saved=False)


def _check_version(request: Request, path: str) -> None:
    """Of a client that pins one; v2 always wants it (docs.stripe.com/api/versioning)."""
    fallback = "" if "/v2/" in path else API_VERSION
    asked = request.headers.get("stripe-version", fallback)
    if asked != API_VERSION:
        raise Failure(400, f"Invalid Stripe API version: {asked}", saved=False)
