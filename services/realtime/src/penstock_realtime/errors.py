"""Errors that only the edge knows."""

from __future__ import annotations

from penstock_shared.contracts.errors import (
    AuthenticationError,
    ErrorBody,
    PenstockError,
    http_status_of,
)
from penstock_shared.contracts.responses import FinalFrame


class RefusedError(PenstockError):
    """Somebody behind the edge refused; status, body and waiting time are theirs."""

    def __init__(self, http_status: int, error: ErrorBody, retry_after_s: float | None) -> None:
        super().__init__(error.message, code=error.code, param=error.param)
        self.status = http_status
        self.error = error
        self.retry_after_s = retry_after_s

    def body(self) -> ErrorBody:
        """Their words."""
        return self.error


class FailedError(RefusedError):
    """The request has ended as failed, where an API has no other way to say so than an error."""

    def __init__(self, final: FinalFrame) -> None:
        body = final.error or ErrorBody(
            message=f"The request has failed ({final.reason}).",
            type=PenstockError.error_type,
            code="failed",
        )
        super().__init__(http_status_of(body), body, None)


class DivergedError(PenstockError):
    """What the client has received is no beginning of the answer that took effect (I6)."""

    default_code = "stream_diverged"


class FeedClosedError(PenstockError):
    """Whoever listened has gone: there is nobody to answer."""

    default_code = "feed_closed"


class InvalidTokenError(AuthenticationError):
    """A token that is refused before its signature is known to be right, or for its claims.

    One answer to all of it: who asks learns neither which issuers are known nor what would fit.
    """

    default_code = "invalid_token"

    def __init__(self) -> None:
        super().__init__(
            "This token is not valid: its issuer, audience, signature or time is not as it must be."
        )
