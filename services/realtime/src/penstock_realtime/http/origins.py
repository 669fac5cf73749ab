"""Which web pages may call: closed by default, for HTTP (CORS) and for WebSocket alike.

A browser names the page's origin (RFC 6454 §7) in every WebSocket upgrade and in every request
across origins; programs send none. CORS alone would not do: it governs who may read an answer,
and no browser applies it to WebSockets.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock_realtime.http.errors import error_response
from penstock_shared.contracts.errors import (
    AuthenticationError,
    PenstockError,
    PermanentError,
    PermissionDeniedError,
)

_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?")
_CREDENTIALS: Final = frozenset({"access_token", "api_key", "apikey", "api-key", "token", "key"})
_METHODS: Final = ("GET", "POST", "DELETE")
_EXPOSED: Final = (
    "penstock-session", "retry-after", "x-request-id",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
)  # fmt: skip


def parse_origins(setting: str) -> frozenset[str]:
    """`PENSTOCK_ALLOWED_ORIGINS`: origins separated by commas.

    Raises:
        PermanentError: one of them is no origin; `*` is none.
    """
    given = [origin.strip().lower() for origin in setting.split(",") if origin.strip()]
    for origin in given:
        if not _ORIGIN.fullmatch(origin):
            msg = (
                f"PENSTOCK_ALLOWED_ORIGINS: {origin[:120]!r} is no origin like https://app.example."
            )
            raise PermanentError(msg, code="origin_malformed")
    return frozenset(given)


def check_origin(scope: Scope, allowed: frozenset[str]) -> bool:
    """Whether a web page asks; one whose origin is not allowed is refused.

    Raises:
        PermissionDeniedError: this origin may not, or there are several.
    """
    origins = [value for name, value in scope["headers"] if name == b"origin"]
    if not origins:
        return False
    if len(origins) > 1 or origins[0].decode("latin-1") not in allowed:
        msg = "This web page may not call: its origin must be in PENSTOCK_ALLOWED_ORIGINS."
        raise PermissionDeniedError(msg, code="origin_not_allowed")
    return True


def check_query(scope: Scope) -> None:
    """Refuse a credential in the URL, whether it is valid or not: URLs end up in logs.

    Raises:
        AuthenticationError: the query string has a parameter of such a name.
    """
    query = scope["query_string"]
    if not query:
        return
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in _CREDENTIALS:
            msg = (
                "No credentials in a URL: send 'Authorization: Bearer <key>', and revoke this one."
            )
            raise AuthenticationError(msg, code="credential_in_url", param=name.lower())


class OriginGate:
    """ASGI middleware: both checks, and the CORS headers for those who may call."""

    def __init__(self, app: ASGIApp, allowed: frozenset[str]) -> None:
        self._app = app
        self._allowed = allowed
        self._cross_origin = CORSMiddleware(
            app,
            allow_origins=allowed,
            allow_methods=_METHODS,
            allow_headers=("*",),
            expose_headers=_EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        try:
            check_query(scope)
            app = self._cross_origin if check_origin(scope, self._allowed) else self._app
        except PenstockError as error:
            app = error_response(error)
        await app(scope, receive, send)
