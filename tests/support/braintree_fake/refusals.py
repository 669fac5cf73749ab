"""Refusals: HTTP statuses, and 422 with what is wrong.

https://developer.paypal.com/braintree/docs/reference/general/exceptions and
https://developer.paypal.com/braintree/docs/reference/general/validation-errors/overview.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.braintree_fake.wire import Members

_UNPROCESSABLE = 422


@dataclass
class Refusal(Exception):  # noqa: N818 - an answer, and no defect
    """A status; with 422 what the `api-error-response` holds."""

    status: int
    body: Members | None = None


def not_found() -> Refusal:
    """404: there is no such object."""
    return Refusal(404)


def invalid(scope: str, attribute: str, code: str, message: str) -> Refusal:
    """A validation error of one member of `transaction`, `customer`, `credit_card`, …."""
    error = {"code": code, "attribute": attribute, "message": message}
    errors = {"errors": [], scope: {"errors": [error]}}
    return Refusal(_UNPROCESSABLE, {"errors": errors, "message": message})


def unverified(code: str) -> Refusal:
    """The processor declined a card that was to be verified: told by a verification."""
    verification = {"status": "processor_declined", "processor_response_code": code}
    body = {"errors": {"errors": []}, "message": "Do Not Honor", "verification": verification}
    return Refusal(_UNPROCESSABLE, body)


def not_done(message: str, transaction: Members) -> Refusal:
    """A transaction was made, and the processor or the gateway said no."""
    body = {"errors": {"errors": []}, "message": message, "transaction": transaction}
    return Refusal(_UNPROCESSABLE, body)
