"""Typed errors, and what each one means for ack, retry and HTTP. The only mapping there is.

PenstockError
 ├─ TransientError       nak with a delay: the same message may succeed later     503
 │   ├─ UnavailableError a server or a peer does not answer                       503
 │   └─ RateLimitedError over a limit; carries when to come back                  429
 └─ PermanentError       terminal fact, then DEAD, then term: will never succeed  400
     ├─ AuthenticationError 401   ├─ PermissionDeniedError 403
     ├─ NotFoundError       404   ├─ ConflictError         409
     ├─ TooLargeError       413   ├─ SchemaError           422
     └─ ErasedError         410

Anything else that escapes a handler is a bug: nak, counted, poison after three deliveries.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict


class Disposition(StrEnum):
    """What the holder of a message does with it after an error."""

    RETRY = "retry"  # nak with a delay and jitter
    REJECT = "reject"  # terminal for the client, DEAD, then term, in this order
    COUNT = "count"  # nak, and treat as poison after POISON_AFTER_DELIVERIES


POISON_AFTER_DELIVERIES = 3


class PenstockError(Exception):
    """Base of every error that Penstock raises on purpose.

    `code` is stable and machine-readable, the message says what was wrong and what to do,
    `param` names the offending field in the caller's own terms.
    """

    http_status: ClassVar[int] = 500
    error_type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param

    def body(self) -> ErrorBody:
        """The error as clients see it (the OpenAI API's shape)."""
        return ErrorBody(
            message=self.message, type=self.error_type, code=self.code, param=self.param
        )


class TransientError(PenstockError):
    """The same attempt may succeed later."""

    http_status = 503
    error_type = "service_unavailable_error"
    default_code = "temporarily_unavailable"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float = 1.0,
    ) -> None:
        super().__init__(message, code=code, param=param)
        self.retry_after_s = retry_after_s


class UnavailableError(TransientError):
    """A server or a peer that is needed does not answer."""


class RateLimitedError(TransientError):
    """Over a limit; `retry_after_s` says when one more request fits."""

    http_status = 429
    error_type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class PermanentError(PenstockError):
    """No retry of the same message can succeed."""

    http_status = 400
    error_type = "invalid_request_error"
    default_code = "invalid_request"


class AuthenticationError(PermanentError):
    """No key, a wrong key, or a revoked one."""

    http_status = 401
    error_type = "authentication_error"
    default_code = "invalid_api_key"


class PermissionDeniedError(PermanentError):
    """A valid identity that may not do this."""

    http_status = 403
    error_type = "permission_error"
    default_code = "permission_denied"


class NotFoundError(PermanentError):
    """What was named does not exist, or belongs to somebody else."""

    http_status = 404
    default_code = "not_found"


class ConflictError(PermanentError):
    """Somebody else got there first, or the name is taken."""

    http_status = 409
    default_code = "conflict"


class ErasedError(PermanentError):
    """The content's key was destroyed on purpose; the content is gone."""

    http_status = 410
    default_code = "erased"


class TooLargeError(PermanentError):
    """The input is over a limit that is named in the message."""

    http_status = 413
    default_code = "input_too_large"


class SchemaError(PermanentError):
    """Well-formed, but not of the shape that the contract asks for."""

    http_status = 422
    default_code = "invalid_schema"


class ErrorBody(BaseModel):
    """One error in the OpenAI API's format."""

    model_config = ConfigDict(frozen=True)

    message: str
    type: str
    code: str
    param: str | None = None


class ErrorReply(BaseModel):
    """What an HTTP answer, a WebSocket error event or a NATS reply carries."""

    model_config = ConfigDict(frozen=True)

    error: ErrorBody


_STATUS_OF_TYPE: Final = {
    kind.error_type: kind.http_status
    for kind in (
        PenstockError,
        TransientError,
        RateLimitedError,
        PermanentError,
        AuthenticationError,
        PermissionDeniedError,
    )
}
_STATUS_OF_CODE: Final = {
    kind.default_code: kind.http_status for kind in (NotFoundError, TooLargeError, ErasedError)
} | {
    "expired": 504,  # a gateway's timeout
    # Nothing is broken: the answer is not as it was asked for.
    **dict.fromkeys(
        ("output_invalid", "output_truncated", "tool_not_called", "low_confidence"), 422
    ),
}
"""Where the type alone says too little."""


def http_status_of(body: ErrorBody) -> int:
    """The HTTP status of an error of which only the body is left, as in a terminal fact."""
    by_type = _STATUS_OF_TYPE.get(body.type, PenstockError.http_status)
    return _STATUS_OF_CODE.get(body.code, by_type)


def disposition_of(error: BaseException) -> Disposition:
    """What to do with the message whose handling raised `error`."""
    if isinstance(error, TransientError):
        return Disposition.RETRY
    if isinstance(error, PermanentError):
        return Disposition.REJECT
    return Disposition.COUNT


def public_error(error: BaseException) -> PenstockError:
    """`error` itself if it is meant for clients, else a blank one that leaks nothing."""
    if isinstance(error, PenstockError):
        return error
    return PenstockError("Something failed on our side. Try again; the request id is in the log.")
