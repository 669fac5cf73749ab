"""Errors that only the edge knows."""

from __future__ import annotations

from penstock_shared.contracts.errors import ErrorBody, PenstockError


class RefusedError(PenstockError):
    """The router refused; status, body and waiting time are the router's own."""

    def __init__(self, http_status: int, error: ErrorBody, retry_after_s: float | None) -> None:
        super().__init__(error.message, code=error.code, param=error.param)
        self.status = http_status
        self.error = error
        self.retry_after_s = retry_after_s

    def body(self) -> ErrorBody:
        """The router's words."""
        return self.error


class DivergedError(PenstockError):
    """What the client has received is no beginning of the answer that took effect (I6)."""

    default_code = "stream_diverged"


class FeedClosedError(PenstockError):
    """Whoever listened has gone: there is nobody to answer."""

    default_code = "feed_closed"
