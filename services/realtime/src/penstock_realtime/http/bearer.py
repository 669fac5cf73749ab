"""The API key of a call: in the `Authorization` header and nowhere else."""

from __future__ import annotations

from penstock_shared.contracts.errors import AuthenticationError


def bearer(header: str | None) -> str | None:
    """The token of `Authorization: Bearer <token>` (RFC 6750 §2.1); None without the header.

    Raises:
        AuthenticationError: the header has another scheme.
    """
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        msg = "Send the API key as 'Authorization: Bearer <key>'."
        raise AuthenticationError(msg, code="unsupported_authorization")
    return token.strip()
