"""Refusals in Stripe's words.

v1 answers `{"error": {"type", "code", "message", "param"}}` (https://docs.stripe.com/api/errors);
v2 has the same envelope with types of its own (https://docs.stripe.com/api-v2-overview#errors).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Failure(Exception):  # noqa: N818 - it is an answer, and no defect
    """A refusal, as the client reads it.

    `saved` says whether an idempotency key keeps it: "We save the result of the first request only
    after endpoint execution begins", so not what fails validation or a limit
    (https://docs.stripe.com/api/idempotent_requests).
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    kind: str = "invalid_request_error"
    saved: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    """Further members of the error: `decline_code`, `payment_intent`."""

    def body(self) -> dict[str, Any]:
        """The document that is sent."""
        error: dict[str, Any] = {"message": self.message, "type": self.kind, **self.more}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.param is not None:
            error["param"] = self.param
        return {"error": error}


def refused(message: str, *, code: str | None = None, param: str | None = None) -> Failure:
    """A request that was understood and cannot be done in the object's state (400)."""
    return Failure(400, message, code, param)


def invalid(message: str, *, code: str | None = None, param: str | None = None) -> Failure:
    """Parameters that fail validation (400): the endpoint never began to run."""
    return Failure(400, message, code, param, saved=False)


def missing(noun: str, identity: str, param: str = "id") -> Failure:
    """`resource_missing`: 404 when the URL names it, 400 when a parameter does.

    https://docs.stripe.com/error-codes#resource-missing
    """
    status = 404 if param == "id" else 400
    return Failure(status, f"No such {noun}: '{identity}'", "resource_missing", param)


def too_many(reason: str, code: str = "rate_limit") -> Failure:
    """429 with the limit that was met.

    Reasons are the values of `Stripe-Rate-Limited-Reason`: `global-rate`, `endpoint-rate`,
    `global-concurrency`, `endpoint-concurrency`, `resource-specific`
    (https://docs.stripe.com/rate-limits#handling-limiting-gracefully).
    """
    message = "Request rate limit exceeded. You can learn more about rate limits here "
    message += "https://stripe.com/docs/rate-limits."
    headers = {"stripe-rate-limited-reason": reason, "stripe-should-retry": "true"}
    return Failure(429, message, code, saved=False, headers=headers)


def broken() -> Failure:
    """500 `api_error`: "something went wrong on Stripe's end" (https://docs.stripe.com/api/errors)."""
    message = "An unknown error occurred. Please contact support if this persists."
    return Failure(500, message, kind="api_error")
